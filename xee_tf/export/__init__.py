"""Export images: options, plan and run."""

from xee_tf.export.bands import BandPlan
from xee_tf.export.image import Image, export_image, plan_export
from xee_tf.export.options import IMAGE_SPELLING, ExportOptions
from xee_tf.export.patches import PatchRecords, PatchShards
from xee_tf.export.plan import ExportPlan
from xee_tf.export.result import ExportResult

__all__ = [
    "IMAGE_SPELLING",
    "BandPlan",
    "ExportOptions",
    "ExportPlan",
    "ExportResult",
    "Image",
    "PatchRecords",
    "PatchShards",
    "export_image",
    "plan_export",
]
