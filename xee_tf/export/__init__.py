"""Export images: options, plan and run."""

from xee_tf.export.image import export_image, plan_export
from xee_tf.export.options import IMAGE_SPELLING
from xee_tf.export.plan import ExportPlan
from xee_tf.export.result import ExportResult

__all__ = ["IMAGE_SPELLING", "ExportPlan", "ExportResult", "export_image", "plan_export"]
