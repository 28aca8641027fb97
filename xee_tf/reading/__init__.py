"""Open exports as lazy rasters, verify them and describe them."""

from xee_tf.reading.content import Unit, fit_fill_value
from xee_tf.reading.features import open_files
from xee_tf.reading.image import check_crs, lazy_dataset, open_image
from xee_tf.reading.inspecting import Inspection, Kind, inspect
from xee_tf.reading.lazy import dask_arrays
from xee_tf.reading.opened import Margins, OpenedExport
from xee_tf.reading.opening import open_export
from xee_tf.reading.options import ReadOptions, RecordFiles
from xee_tf.reading.verifying import Verification, verify

__all__ = [
    "Inspection",
    "Kind",
    "Margins",
    "OpenedExport",
    "ReadOptions",
    "RecordFiles",
    "Unit",
    "Verification",
    "check_crs",
    "dask_arrays",
    "fit_fill_value",
    "inspect",
    "lazy_dataset",
    "open_export",
    "open_files",
    "open_image",
    "verify",
]
