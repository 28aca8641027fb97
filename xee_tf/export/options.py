"""The options of an image export: their types, checks and spelling in Earth Engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict, get_args

import xarray as xr

from xee_tf.errors import OptionError, shorten
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
from xee_tf.sampling import PatchBlock, PatchSelection, read_block

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
    "bands": "select the bands, as in ds[['B4', 'B3']]",
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
    statistics: bool
    if_exists: IfExists
    identity: str | None
    split_dim: str | None
    region: Any
    region_crs: Any
    mask: str | xr.DataArray | None
    sample: float | Mapping[str, Any] | PatchSelection | None
    split: Mapping[str, float] | Mapping[str, PatchSelection] | None
    split_block: PatchBlock | None
    seed: int
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
    if not isinstance(value, Mapping | Sequence) or isinstance(value, str | bytes):
        raise OptionError(
            f"{name} must be a mapping of array bands to depths, such as {{'ndvi': 3}}, or a sequence with "
            f"one depth for each array band; got {shorten(repr(value))}."
        )
    return value


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Checked options of an image export that its plan contains.

    Parameters
    ----------
    patch_dimensions : int or (width, height), default (256, 256)
        Size of a patch in pixels, without its margin.
    kernel_size : int or (width, height), default 1
        Size of the kernel in pixels. A stored patch includes a margin of half the kernel on every side, with
        the surrounding pixels of the raster: ``patch + 2 * (kernel // 2)``. The default means no margin.
    compressed : bool, default True
        Whether to compress the shards with gzip.
    max_file_size : int, default 2**30
        Maximum size of a shard in bytes, before compression. A shard has at least one patch.
    default_value : float, default 0
        Value for pixels of a band that are masked: NaN, ``_FillValue`` or nodata, `mask`, or outside the
        raster. For integer bands, the value is truncated to an integer and clamped to the range of the dtype;
        a warning lists the bands that cannot hold it.
    tensor_depths : mapping of str to int, or sequence of int, optional
        Depth of each array band (a variable with additional dimensions, such as time). The band is truncated
        to this depth or padded with `default_value`, and written in the order channel, height, width. A
        sequence has one depth for each array band. Default: the number of values per pixel of each band.
    sequence_data : bool, default False
        Whether to write one ``SequenceExample`` for each pixel, in row-major order within a patch: scalar
        bands as context, array bands as feature lists with one value for each step. Pixels have no margins.
    collapse_bands : bool, default False
        Whether to write all bands, including array bands, as one tensor (with `sequence_data`, one series)
        under the name of the first band. Its type is the first of byte, int64 and float that can hold all
        bands.
    drop_masked_steps : bool, default False
        With `sequence_data`, whether to omit masked steps, so that the series are ragged.
    masked_threshold : float, default 1.0
        Patches with a larger proportion of masked pixels (masked in any band, including margins) are
        omitted. If it is below 1, no mixer is written, as in Earth Engine; this package reads the
        georeference from the manifest.
    feature_types : {"float", "band"}, default "float"
        "float" writes all bands as float lists, as described in Earth Engine's guide. "band" writes uint8 as
        bytes, other integers as int64 lists and floats as float lists, as Earth Engine does in practice.
    edge : {"drop", "pad"}, default "drop"
        Whether incomplete patches at the right and bottom edges are dropped, as in Earth Engine, or padded
        with `default_value`.
    index : bool, default False
        Whether to write ``<destination>-index.parquet`` (GeoParquet) with the file, record, patch, row,
        column, proportion of masked pixels and outline of every patch.
    statistics : bool, default True
        Whether to take the statistics of every band (see `xee_tf.ExportResult.statistics`) while the pixels
        are encoded. They take about a sixth more CPU time if shards are compressed, and about half more if
        they are not.
    if_exists : {"error", "overwrite", "resume"}, default "error"
        What to do if an export with this prefix exists. "resume" keeps the complete shards of an interrupted
        export that was also run with "resume", and writes the others; it returns a complete export without
        writing anything. If the export would be different, it raises an error; see `identity`.
    """

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
    statistics: bool = option(True, flag)
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
    """Options of an image export that are not part of its plan: the raster and how the export is run.

    Parameters
    ----------
    split_dim : str, optional
        Dimension, such as "time", to split into one export for each step. The prefix of each export ends
        with ``_<date>`` (or the coordinate as text).
    region : tuple or GeoJSON-like, optional
        Part of the raster to export: ``(left, bottom, right, top)``, a geometry (its bounding box is used),
        or ``(slice_y, slice_x)`` in pixels. Margins have the pixels around the region.
    region_crs : CRS or str or int, optional
        CRS of `region`. Default: the CRS of the raster for a bounding box, EPSG:4326 for GeoJSON.
    mask : DataArray or str, optional
        Boolean array, true where pixels are masked in all bands; or the name of such a variable of `image`,
        which is not exported as a band.
    sample : int, float, mapping or PatchSelection, optional
        Write only some patches: a number, such as 1000; a proportion, such as 0.1; options of
        `xee_tf.sample_patches`, such as ``{"n": 100, "class_band": "landcover"}``, ``{"polygons": frame}`` or
        ``{"per_block": 2, "block": 8}``, in which `class_band` may name a band of the image; or a selection
        of its patches. `class_band` is read before anything else, also if `compute` is False and by a plan;
        each of its chunks is then loaded twice. No mixer is written, as if patches are omitted as masked; the
        manifest contains the number of the patch of each record, and `xee_tf.open_image` masks the others.
    split : mapping of str to float, or PatchSplit, optional
        Write an export for each side, ``<destination>-train`` and ``<destination>-test`` for ``{"train": 0.8,
        "test": 0.2}``, in one pass over the raster. No pixel of one side, margins included, is in another;
        see `xee_tf.split_patches`, whose result can be passed too. Like `sample`, without a mixer; with both,
        the sample is split.
    split_block : int or (width, height), optional
        Size in patches of the blocks that belong to one side; see `xee_tf.split_patches`.
    seed : int, default 0
        Random seed of `sample` and `split`.
    crs : CRS or str or int, optional
        CRS of the image, if it has none or a wrong one.
    transform : Affine or sequence of float, optional
        Affine transform of the image, if it has none or a wrong one.
    progress : bool, default False
        Whether to show a progress bar.
    compute : bool, default True
        Whether to run the export. If False, return a Delayed without writing anything; `if_exists` is
        checked again when it is computed.
    storage_options : mapping, optional
        Options for fsspec.
    format_options : mapping, optional
        Options in Earth Engine's spelling: ``{"patchDimensions": [256, 256]}``.
    """

    _keywords: ClassVar[type] = ExportKeywords

    split_dim: str | None = None
    region: Any = None
    region_crs: Any = None
    mask: str | xr.DataArray | None = None
    sample: float | Mapping[str, Any] | PatchSelection | None = None
    split: Mapping[str, float] | Mapping[str, PatchSelection] | None = None
    split_block: PatchBlock | None = option(None, read_block)
    seed: int = option(0, integer())
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
