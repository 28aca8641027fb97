"""Earth Engine's TensorFlow bridge for any raster that xarray opens, on your own Dask cluster."""

from xee_tf.accessor import TFExportAccessor
from xee_tf.errors import (
    DestinationError,
    DestinationExistsError,
    GeoreferenceError,
    GridMismatchError,
    ManifestError,
    MissingExtraError,
    MissingModelError,
    MissingShardError,
    MixerError,
    ModelError,
    OptionError,
    PredictionError,
    RecordError,
    XeeTFError,
)
from xee_tf.export.image import export_image, plan_export
from xee_tf.export.plan import ExportPlan
from xee_tf.export.result import ExportResult
from xee_tf.geometry import PatchGrid, Size, Window
from xee_tf.georef.bands import add_bands
from xee_tf.model import Model
from xee_tf.predict.to_zarr import predict_to_zarr
from xee_tf.prepare.model import PreparedModel, prepare_model
from xee_tf.reading.image import open_image
from xee_tf.reading.verify import Verification, verify
from xee_tf.remote.statistics import PredictionStats
from xee_tf.serving.server import Server, serve
from xee_tf.shards.runs import ShardInfo
from xee_tf.sidecars import Mixer
from xee_tf.tables.export import TableResult, export_table
from xee_tf.tables.read import open_table
from xee_tf.tables.sample import sample_table
from xee_tf.training.dataset import feature_spec, tf_dataset
from xee_tf.upload.image import upload_image
from xee_tf.upload.table import upload_table
from xee_tf.upload.writer import PredictionWriter
from xee_tf.version import __version__ as __version__

__all__ = [
    "DestinationError",
    "DestinationExistsError",
    "ExportPlan",
    "ExportResult",
    "GeoreferenceError",
    "GridMismatchError",
    "ManifestError",
    "MissingExtraError",
    "MissingModelError",
    "MissingShardError",
    "Mixer",
    "MixerError",
    "Model",
    "ModelError",
    "OptionError",
    "PatchGrid",
    "PredictionError",
    "PredictionStats",
    "PredictionWriter",
    "PreparedModel",
    "RecordError",
    "Server",
    "ShardInfo",
    "Size",
    "TFExportAccessor",
    "TableResult",
    "Verification",
    "Window",
    "XeeTFError",
    "add_bands",
    "export_image",
    "export_table",
    "feature_spec",
    "open_image",
    "open_table",
    "plan_export",
    "predict_to_zarr",
    "prepare_model",
    "sample_table",
    "serve",
    "tf_dataset",
    "upload_image",
    "upload_table",
    "verify",
]
