"""The files beside records: Earth Engine's mixer, and the manifest that holds what the mixer cannot."""

from xee_tf.sidecars.bands import (
    BandSpec,
    dim_lengths,
    distinct_dims,
    step_names,
)
from xee_tf.sidecars.documents import ManifestShard, ShardInfo
from xee_tf.sidecars.manifest import (
    ImageManifest,
    Manifest,
    TableColumn,
    TableManifest,
)
from xee_tf.sidecars.manifest_files import parse_manifest, read_manifest
from xee_tf.sidecars.mixer import Mixer

__all__ = [
    "BandSpec",
    "ImageManifest",
    "Manifest",
    "ManifestShard",
    "Mixer",
    "ShardInfo",
    "TableColumn",
    "TableManifest",
    "dim_lengths",
    "distinct_dims",
    "parse_manifest",
    "read_manifest",
    "step_names",
]
