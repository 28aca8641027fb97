"""The files beside records: Earth Engine's mixer, and the manifest that holds what the mixer cannot."""

from xee_tf.sidecars.dimensions import (
    BandDimensions,
    Record,
    distinct_dims,
    step_names,
)
from xee_tf.sidecars.documents import ManifestShard
from xee_tf.sidecars.manifest import (
    ImageManifest,
    Manifest,
    TableColumn,
    TableManifest,
    parse_dimensions,
    parse_manifest,
    read_manifest,
)
from xee_tf.sidecars.mixer import Mixer, java_double

__all__ = [
    "BandDimensions",
    "ImageManifest",
    "Manifest",
    "ManifestShard",
    "Mixer",
    "Record",
    "TableColumn",
    "TableManifest",
    "distinct_dims",
    "java_double",
    "parse_dimensions",
    "parse_manifest",
    "read_manifest",
    "step_names",
]
