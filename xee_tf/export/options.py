"""The options of an export: Earth Engine's spelling, ours, and what each may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from xee_tf.errors import OptionError
from xee_tf.geometry import Edge, Size
from xee_tf.options import IfExists, Spelling, check_default_value, is_number, one_of
from xee_tf.records import FeatureTypes

__all__ = [
    "EE_NAMES",
    "IMAGE_SPELLING",
    "REPLACED",
    "TABLE_FORMATS",
    "ExportOptions",
]

#: Earth Engine's names of the options that a ``formatOptions`` dictionary may hold, and ours.
EE_NAMES = {
    "patchDimensions": "patch_dimensions",
    "kernelSize": "kernel_size",
    "compressed": "compressed",
    "maxFileSize": "max_file_size",
    "defaultValue": "default_value",
    "tensorDepths": "tensor_depths",
    "sequenceData": "sequence_data",
    "collapseBands": "collapse_bands",
    "maskedThreshold": "masked_threshold",
}


_RESAMPLED = "the raster keeps its own pixels; resample it first, for example with ds.rio.reproject({})"

#: Options of ``ee.batch.Export`` that mean nothing here, and what takes their place.
REPLACED = {
    "scale": _RESAMPLED.format("ds.rio.crs, resolution=30"),
    "crsTransform": _RESAMPLED.format("'EPSG:32633', transform=..., shape=(height, width)"),
    "dimensions": _RESAMPLED.format("ds.rio.crs, shape=(height, width)"),
    "projection": _RESAMPLED.format("'EPSG:32633', resolution=30"),
    "maxPixels": "there is no limit; leave it out",
    "bestEffort": "there is no limit; leave it out",
    "tileScale": "the chunks of the raster set the memory of a task; leave it out",
    "shardSize": "the chunks of the raster set the size of a task; leave it out",
    "priority": "Dask schedules the work; leave it out",
    "maxWorkers": "Dask schedules the work; leave it out",
    "description": "the path names the export; leave it out",
    "folder": "it is part of the path, as in 'folder/scene'",
    "driveFolder": "it is part of the path, as in 'folder/scene'",
    "bucket": "it is part of the path, as in 'gs://bucket/scene' or 's3://bucket/scene'",
    "outputBucket": "it is part of the path, as in 'gs://bucket/scene' or 's3://bucket/scene'",
    "outputPrefix": "it is the path, as in 'gs://bucket/scene' or 'out/scene'",
    "driveFileNamePrefix": "it is the path, as in 'out/scene'",
    "assetId": "give a path, such as 'out/scene'",
    "overwrite": "if_exists='overwrite' replaces what is there",
    "append": "files are never added to; choose another path",
}

_IMAGE_REPLACED = REPLACED | {
    "fileDimensions": "patch_dimensions is the size of a patch, max_file_size that of a file",
    "skipEmptyTiles": "masked_threshold=0.999 leaves out patches without a valid pixel",
    "pyramidingPolicy": "TFRecords have no overviews; leave it out",
    "selectors": "select the bands, as in ds[['B4', 'B3']]",
    "collection": "rows of a table are exported with xee_tf.export_table",
    "maxVertices": "it is an option of tables; leave it out",
    "noData": "default_value is written where a band is masked",
    "cloudOptimized": "it is an option of GeoTIFFs; leave it out",
    "metadataKeys": "it is an option of GeoTIFFs; leave it out",
}

_FORMATS = {"tfrecord": "", "tf_record": ""}
_IMAGE_FORMATS = _FORMATS | {
    "tf_record_image": "",
    "geotiff": "Write a GeoTIFF with ds.rio.to_raster('scene.tif')",
    "geo_tiff": "Write a GeoTIFF with ds.rio.to_raster('scene.tif')",
    "npy": "Write an array with np.save('scene.npy', ds['B4'].values)",
    "zarr": "Write a Zarr with ds.to_zarr('scene.zarr')",
}
_FRAME = "Write the table itself with {}"
TABLE_FORMATS = _FORMATS | {
    "tf_record_table": "",
    "csv": _FRAME.format("table.to_csv('sites.csv')"),
    "geojson": _FRAME.format("table.to_file('sites.geojson')"),
    "geo_json": _FRAME.format("table.to_file('sites.geojson')"),
    "kml": _FRAME.format("table.to_file('sites.kml')"),
    "kmz": _FRAME.format("table.to_file('sites.kml')"),
    "shp": _FRAME.format("table.to_file('sites.shp')"),
    "parquet": _FRAME.format("table.to_parquet('sites.parquet')"),
}

IMAGE_SPELLING = Spelling(
    "export options",
    aliases={"fileNamePrefix": "path"},
    replaced=_IMAGE_REPLACED,
    notes={"crs": "here it replaces the CRS that the raster has, and nothing is reprojected"},
    formats=_IMAGE_FORMATS,
    nested=EE_NAMES,
)
"""How the options of an image export are written: ``ee.batch.Export.image`` and ours."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Checked options of an image export. See `xee_tf.export_image` for what each one does."""

    patch: Size
    kernel: Size
    compressed: bool
    max_file_size: int
    default_value: float
    tensor_depths: Mapping[str, int] | Sequence[int] | None
    sequence_data: bool
    collapse_bands: bool
    drop_masked_steps: bool
    masked_threshold: float
    feature_types: FeatureTypes
    edge: Edge
    index: bool
    if_exists: IfExists

    @classmethod
    def read(
        cls,
        *,
        patch_dimensions: Any,
        kernel_size: Any,
        compressed: Any,
        max_file_size: Any,
        default_value: Any,
        tensor_depths: Any,
        sequence_data: Any,
        collapse_bands: Any,
        drop_masked_steps: Any,
        masked_threshold: Any,
        feature_types: Any,
        edge: Any,
        index: Any,
        if_exists: Any,
    ) -> ExportOptions:
        """Check what a user gave.

        Raises
        ------
        OptionError
            That names the option, the value and what was expected.
        """
        patch = Size.from_xy(patch_dimensions, "patch_dimensions")
        kernel = Size.from_xy(kernel_size, "kernel_size")
        if not is_number(max_file_size) or int(max_file_size) < 1:
            raise OptionError(f"max_file_size must be a positive number of bytes; got {max_file_size!r}.")
        check_default_value(default_value, finite=True)
        if not is_number(masked_threshold) or not 0 <= masked_threshold <= 1:
            raise OptionError(
                f"masked_threshold must be a proportion between 0 and 1; got {masked_threshold!r}."
            )
        if tensor_depths is not None and not isinstance(tensor_depths, Mapping | Sequence):
            raise OptionError(
                f"tensor_depths must be a mapping from array bands to depths; got {tensor_depths!r}."
            )
        if drop_masked_steps and not sequence_data:
            raise OptionError(
                "drop_masked_steps=True needs sequence_data=True: a patch has the same steps at every pixel."
            )
        one_of("feature_types", feature_types, get_args(FeatureTypes))
        one_of("edge", edge, get_args(Edge))
        one_of("if_exists", if_exists, get_args(IfExists))
        return cls(
            patch=patch,
            kernel=kernel,
            compressed=bool(compressed),
            max_file_size=int(max_file_size),
            default_value=default_value,
            tensor_depths=tensor_depths,
            sequence_data=bool(sequence_data),
            collapse_bands=bool(collapse_bands),
            drop_masked_steps=bool(drop_masked_steps),
            masked_threshold=float(masked_threshold),
            feature_types=feature_types,
            edge=edge,
            index=bool(index),
            if_exists=if_exists,
        )
