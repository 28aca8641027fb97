"""Export images: options, plan and run."""

from xee_tf.export.bands import BandPlan
from xee_tf.export.image import Image, export_image, image_job, plan_export
from xee_tf.export.job import ExportJob
from xee_tf.export.options import IMAGE_SPELLING, ExportOptions, ExportSource
from xee_tf.export.patches import PatchRecords, PatchShards
from xee_tf.export.plan import ExportPlan
from xee_tf.export.result import ExportResult

__all__ = [
    "IMAGE_SPELLING",
    "BandPlan",
    "ExportJob",
    "ExportOptions",
    "ExportPlan",
    "ExportResult",
    "ExportSource",
    "Image",
    "PatchRecords",
    "PatchShards",
    "export_image",
    "image_job",
    "plan_export",
]
