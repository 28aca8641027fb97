"""Earth Engine's TensorFlow workflow for any raster that xarray opens, on your own Dask cluster."""

from xee_tf import typing
from xee_tf.accessor import TFExportAccessor
from xee_tf.connector import Connector
from xee_tf.errors import (
    ChunkError,
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
    StorageError,
    XeeTFError,
)
from xee_tf.exploring import Explorer, explore
from xee_tf.export import ExportPlan, ExportResult, export_image, plan_export
from xee_tf.geometry import PatchGrid, Size, Window
from xee_tf.georef import add_bands, class_map
from xee_tf.installed import show_versions
from xee_tf.model import Model
from xee_tf.pictures import show_patches, show_split
from xee_tf.predict import PredictPlan, predict_to_cog, predict_to_zarr
from xee_tf.prepare import PreparedModel, prepare_model
from xee_tf.reading import Inspection, Verification, inspect, open_image, verify
from xee_tf.remote import PredictionStats
from xee_tf.sampling import PatchSelection, PatchSplit, band_statistics, sample_patches, split_patches
from xee_tf.serving import Server, serve
from xee_tf.sidecars import Mixer, ShardInfo
from xee_tf.tables import TableResult, export_table, open_table, sample_table
from xee_tf.training import Patches, PatchSequence, feature_spec, normalization, open_patches, tf_dataset
from xee_tf.upload import PredictionWriter, to_cog, upload_image, upload_table
from xee_tf.version import __version__ as __version__

__all__ = [
    "ChunkError",
    "Connector",
    "DestinationError",
    "DestinationExistsError",
    "Explorer",
    "ExportPlan",
    "ExportResult",
    "GeoreferenceError",
    "GridMismatchError",
    "Inspection",
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
    "PatchSelection",
    "PatchSequence",
    "PatchSplit",
    "Patches",
    "PredictPlan",
    "PredictionError",
    "PredictionStats",
    "PredictionWriter",
    "PreparedModel",
    "RecordError",
    "Server",
    "ShardInfo",
    "Size",
    "StorageError",
    "TFExportAccessor",
    "TableResult",
    "Verification",
    "Window",
    "XeeTFError",
    "add_bands",
    "band_statistics",
    "class_map",
    "explore",
    "export_image",
    "export_table",
    "feature_spec",
    "inspect",
    "normalization",
    "open_image",
    "open_patches",
    "open_table",
    "plan_export",
    "predict_to_cog",
    "predict_to_zarr",
    "prepare_model",
    "sample_patches",
    "sample_table",
    "serve",
    "show_patches",
    "show_split",
    "show_versions",
    "split_patches",
    "tf_dataset",
    "to_cog",
    "typing",
    "upload_image",
    "upload_table",
    "verify",
]


def __dir__() -> list[str]:
    """Complete only public names, without the subpackages."""
    return sorted([*__all__, "__version__"])
