"""The options of an export: Earth Engine's spelling, ours, and what each may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict, get_args

import xarray as xr

from xee_tf.errors import OptionError
from xee_tf.extras import extra
from xee_tf.geometry import Edge, Size
from xee_tf.options import (
    EXPORT_FORMATS,
    EXPORT_REPLACED,
    IfExists,
    Options,
    Spelling,
    check_default_value,
    choice,
    flag,
    nested_names,
    number,
    option,
    whole,
)
from xee_tf.records import FeatureTypes

__all__ = [
    "IMAGE_SPELLING",
    "ExportKeywords",
    "ExportOptions",
    "ExportSource",
]

_IMAGE_REPLACED = EXPORT_REPLACED | {
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

_IMAGE_FORMATS = EXPORT_FORMATS | {
    "tf_record_image": "",
    "geotiff": "Write a GeoTIFF with ds.rio.to_raster('scene.tif')",
    "geo_tiff": "Write a GeoTIFF with ds.rio.to_raster('scene.tif')",
    "npy": "Write an array with np.save('scene.npy', ds['B4'].values)",
    "zarr": "Write a Zarr with ds.to_zarr('scene.zarr')",
}


class ExportKeywords(TypedDict, total=False):
    """What users write for the options of an image export; `xee_tf.export_image` describes each one."""

    patch_dimensions: int | Sequence[int]
    kernel_size: int | Sequence[int]
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
    split_dim: str | None
    region: Any
    region_crs: Any
    mask: str | xr.DataArray | None
    crs: Any
    transform: Any
    progress: bool
    compute: bool
    storage_options: Mapping[str, Any] | None
    format_options: Mapping[str, Any] | None


def _finite(value: Any, name: str) -> Any:
    check_default_value(value, finite=True)
    return value


def _depths(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping | Sequence):
        raise OptionError(f"{name} must be a mapping from array bands to depths; got {value!r}.")
    return value


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Checked options of an image export that its plan holds; `xee_tf.export_image` describes each one."""

    _keywords: ClassVar[type] = ExportKeywords

    patch_dimensions: Size = option((256, 256), Size.from_xy, nested=True)
    kernel_size: Size = option((1, 1), Size.from_xy, nested=True)
    compressed: bool = option(True, flag, nested=True)
    max_file_size: int = option(2**30, whole(1), nested=True)
    default_value: float = option(0, _finite, nested=True)
    tensor_depths: Mapping[str, int] | Sequence[int] | None = option(None, _depths, nested=True)
    sequence_data: bool = option(False, flag, nested=True)
    collapse_bands: bool = option(False, flag, nested=True)
    drop_masked_steps: bool = option(False, flag)
    masked_threshold: float = option(1.0, number(0, 1), nested=True)
    feature_types: FeatureTypes = option("float", choice(*get_args(FeatureTypes)))
    edge: Edge = option("drop", choice(*get_args(Edge)))
    index: bool = option(False, flag)
    if_exists: IfExists = option("error", choice(*get_args(IfExists)))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop_masked_steps and not self.sequence_data:
            raise OptionError(
                "drop_masked_steps=True needs sequence_data=True: a patch has the same steps at every pixel."
            )
        if self.index:
            with extra("tables", "index=True"):  # now, not after hours of writing
                import geopandas  # noqa: F401


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportSource(Options):
    """Options of an image export about the raster and the run, which its plan does not hold."""

    _keywords: ClassVar[type] = ExportKeywords

    split_dim: str | None = None
    region: Any = None
    region_crs: Any = None
    mask: str | xr.DataArray | None = None
    crs: Any = None
    transform: Any = None
    progress: bool = option(False, flag)
    compute: bool = option(True, flag)
    storage_options: Mapping[str, Any] | None = None
    format_options: Mapping[str, Any] | None = None


IMAGE_SPELLING = Spelling(
    "export options",
    aliases={"fileNamePrefix": "destination"},
    replaced=_IMAGE_REPLACED,
    notes={"crs": "here it replaces the CRS that the raster has, and nothing is reprojected"},
    formats=_IMAGE_FORMATS,
    nested=nested_names(ExportOptions),
    renamed={"path": "destination"},
)
"""How the options of an image export are written: ``ee.batch.Export.image`` and ours."""
