"""Write predictions to TFRecord, and convert records and rasters to GeoTIFF, Zarr and vector files."""

from xee_tf.upload.casting import Nodata, one_nodata
from xee_tf.upload.cog import (
    POLICIES,
    Origin,
    OverviewResampling,
    Resampling,
    check_resampling,
    methods_of,
    read_origin,
    require_no_overviews,
    to_cog,
    write_raster,
)
from xee_tf.upload.destination import raster_format, require_format
from xee_tf.upload.files import geotiff_files
from xee_tf.upload.image import upload_image
from xee_tf.upload.predictions import Predictions
from xee_tf.upload.table import upload_table
from xee_tf.upload.writer import PredictionWriter

__all__ = [
    "POLICIES",
    "Nodata",
    "Origin",
    "OverviewResampling",
    "PredictionWriter",
    "Predictions",
    "Resampling",
    "check_resampling",
    "geotiff_files",
    "methods_of",
    "one_nodata",
    "raster_format",
    "read_origin",
    "require_format",
    "require_no_overviews",
    "to_cog",
    "upload_image",
    "upload_table",
    "write_raster",
]
