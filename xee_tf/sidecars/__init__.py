"""Sidecar files of an export: Earth Engine's mixer, and the manifest for everything else."""

from xee_tf.sidecars.bands import BandSpec, dim_lengths, distinct_dims, step_names
from xee_tf.sidecars.complete import deleted_error, find_complete, find_same
from xee_tf.sidecars.described import (
    Described,
    describe_export,
    differing_crs,
    differing_keys,
    manifest_name,
    require_same,
)
from xee_tf.sidecars.documents import ManifestShard, ShardInfo
from xee_tf.sidecars.find import (
    Exported,
    ExportedImage,
    ExportedTable,
    find_exports,
    find_sources,
    find_tables,
    folder_exports,
    require_missing,
)
from xee_tf.sidecars.interrupted import require_whole
from xee_tf.sidecars.manifest import ImageManifest, Manifest, TableColumn, TableManifest, TablePatches
from xee_tf.sidecars.manifest_files import manifest_of, read_document, read_manifest
from xee_tf.sidecars.missing import missing_error
from xee_tf.sidecars.mixer import Mixer
from xee_tf.sidecars.names import (
    IMAGE_MANIFEST,
    MIXER,
    RECORDS,
    TABLE,
    TABLE_MANIFEST,
    ExportNames,
    destination_of,
    export_prefix,
    has_prefix,
    image_files,
    is_image,
    manifest_location,
    prefix_of,
    table_location,
)
from xee_tf.sidecars.packing import is_unchanged
from xee_tf.sidecars.shard_files import (
    DescribedFile,
    check_order,
    describe_files,
    find_records,
    find_shards,
    image_manifests,
    listed_shards,
)

__all__ = [
    "IMAGE_MANIFEST",
    "MIXER",
    "RECORDS",
    "TABLE",
    "TABLE_MANIFEST",
    "BandSpec",
    "Described",
    "DescribedFile",
    "ExportNames",
    "Exported",
    "ExportedImage",
    "ExportedTable",
    "ImageManifest",
    "Manifest",
    "ManifestShard",
    "Mixer",
    "ShardInfo",
    "TableColumn",
    "TableManifest",
    "TablePatches",
    "check_order",
    "deleted_error",
    "describe_export",
    "describe_files",
    "destination_of",
    "differing_crs",
    "differing_keys",
    "dim_lengths",
    "distinct_dims",
    "export_prefix",
    "find_complete",
    "find_exports",
    "find_records",
    "find_same",
    "find_shards",
    "find_sources",
    "find_tables",
    "folder_exports",
    "has_prefix",
    "image_files",
    "image_manifests",
    "is_image",
    "is_unchanged",
    "listed_shards",
    "manifest_location",
    "manifest_name",
    "manifest_of",
    "missing_error",
    "prefix_of",
    "read_document",
    "read_manifest",
    "require_missing",
    "require_same",
    "require_whole",
    "step_names",
    "table_location",
]
