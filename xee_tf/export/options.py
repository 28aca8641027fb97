"""The options of an image export: their types, checks and spelling in Earth Engine."""

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
    integer,
    nested_names,
    number,
    option,
)
from xee_tf.records import FeatureTypes

__all__ = [
    "IMAGE_SPELLING",
    "ExportKeywords",
    "ExportOptions",
    "ExportSource",
]

_IMAGE_REPLACED = EXPORT_REPLACED | {
    "fileDimensions": "use patch_dimensions for the size of a patch, max_file_size for the size of a file",
    "skipEmptyTiles": "use masked_threshold=0.999 to omit patches without valid pixels",
    "pyramidingPolicy": "TFRecord files have no overviews; omit it",
    "selectors": "select the bands, as in ds[['B4', 'B3']]",
    "collection": "use xee_tf.export_table to export a table",
    "maxVertices": "it applies to tables only; omit it",
    "noData": "use default_value, which is written where a band is masked",
    "cloudOptimized": "it applies to GeoTIFFs only; omit it",
    "metadataKeys": "it applies to GeoTIFFs only; omit it",
}

_IMAGE_FORMATS = EXPORT_FORMATS | {
    "tf_record_image": "",
    "geotiff": "Write a GeoTIFF with ds.rio.to_raster('scene.tif')",
    "geo_tiff": "Write a GeoTIFF with ds.rio.to_raster('scene.tif')",
    "npy": "Write an array with np.save('scene.npy', ds['B4'].values)",
    "zarr": "Write a Zarr with ds.to_zarr('scene.zarr')",
}


class ExportKeywords(TypedDict, total=False):
    """Types of the options of an image export before conversion; see `xee_tf.export_image`."""

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
        raise OptionError(f"{name} must be a mapping of array bands to depths; got {value!r}.")
    return value


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Checked options of an image export that are part of its plan; see `xee_tf.export_image`."""

    _keywords: ClassVar[type] = ExportKeywords

    patch_dimensions: Size = option((256, 256), Size.from_xy, nested=True)
    kernel_size: Size = option((1, 1), Size.from_xy, nested=True)
    compressed: bool = option(True, flag, nested=True)
    max_file_size: int = option(2**30, integer(1), nested=True)
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
                "drop_masked_steps=True requires sequence_data=True, because all pixels of a patch have the "
                "same steps."
            )
        if self.index:
            with extra("tables", "index=True"):  # fail now, not after hours of writing
                import geopandas  # noqa: F401


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportSource(Options):
    """Options of an image export that are not part of its plan: the source and how to run the export."""

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
    notes={"crs": "here it overrides the CRS of the raster, and nothing is reprojected"},
    formats=_IMAGE_FORMATS,
    nested=nested_names(ExportOptions),
    renamed={"path": "destination"},
)
"""The spelling of the options of an image export, as in ``ee.batch.Export.image``."""
