"""Sample a raster into a table: at points, in polygons, or a number of pixels per class."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import psutil
import xarray as xr
from dask.utils import format_bytes

from xee_tf.blocks import BlockLayout, chunk_blocks
from xee_tf.display import counted
from xee_tf.errors import OptionError
from xee_tf.extras import extra
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef, full_turn, read_georef, whole_image
from xee_tf.graph import BlockJob, Delayed, add_task, chunk_grids, work_on_blocks
from xee_tf.identity import IdentityOptions, run_identity
from xee_tf.options import IfExists, check_default_value, check_flags, one_of, read_names, spelled
from xee_tf.records import MOST_RECORD_BYTES
from xee_tf.sampling import Choice, Sample, SamplePixels, find_sample_pixels, first_plane
from xee_tf.sidecars import TableColumn
from xee_tf.signals import interruptible
from xee_tf.storage import PathLike
from xee_tf.tables.export import TableResult, check_target, write_table
from xee_tf.tables.joining import TableStore
from xee_tf.tables.options import SAMPLE_SPELLING
from xee_tf.tables.patches import PatchTable
from xee_tf.tables.pixels import Sampler, SourceBands, choose_pixels, join_samples
from xee_tf.tables.rows import Rows, Values, select_columns
from xee_tf.tables.sources import LONLAT, Geometry, LazyTable, lonlat_of_pixels
from xee_tf.tables.values import column_values

__all__ = ["sample_table"]

_LARGEST = float(np.finfo(np.float32).max)


@spelled(SAMPLE_SPELLING, IdentityOptions)
@interruptible()
def sample_table(
    image: xr.Dataset | xr.DataArray | Sequence[xr.Dataset | xr.DataArray],
    where: Any,
    destination: PathLike,
    *,
    properties: Sequence[str] | None = None,
    n: int | Mapping[Any, int] | None = None,
    class_band: str | None = None,
    seed: int = 0,
    drop_nulls: bool = True,
    all_touched: bool = False,
    columns: Sequence[str] | None = None,
    geometry: Geometry | None = "lonlat",
    patch_dimensions: int | Sequence[int] | None = None,
    default_value: float = 0,
    crs: Any = None,
    transform: Any = None,
    if_exists: IfExists = "error",
    identity: str | None = None,
    progress: bool = False,
    compute: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> TableResult | Delayed:
    """Sample a raster into a table, like Earth Engine's ``sampleRegions`` and ``stratifiedSample``.

    Each row is a pixel: its value in each band, and the properties of its point or polygon. With
    `patch_dimensions`, it is the patch around the pixel, like ``neighborhoodToArray`` followed by a sample.
    Only chunks that contain a point, intersect a polygon or overlap a patch are loaded, each of them once.
    The result does not depend on the chunks of the raster or on the scheduler.

    Parameters
    ----------
    image : Dataset, DataArray or sequence of them
        The raster, as for `xee_tf.export_image`. A band with additional dimensions becomes an array-valued
        column.
    where : GeoDataFrame, GeoSeries or None
        Points: sample the pixel at each point, in the order of the points. Polygons: sample all pixels whose
        center is inside, by polygon, then row-major. None: sample all pixels of the raster; for use with `n`.
        Coordinates may be in any CRS. Longitudes may range from -180 to 180 or from 0 to 360, regardless of
        the raster, and an edge of a polygon that spans more than 180 degrees crosses the antimeridian.
    destination : str or path-like
        Prefix of the file ``<destination>.tfrecord.gz``: a local path or an fsspec URL.
    properties : sequence of str, optional
        Columns of `where` to copy. By default all columns except the geometry.
    n : int or mapping of class to int, optional
        Number of pixels to select at random from each class; all pixels of a class that has fewer, with a
        warning. A mapping
        selects from its classes only (Earth Engine's ``classValues`` and ``classPoints``).
    class_band : str, optional
        Band or property that holds the classes. By default all pixels are in the same class.
    seed : int, default 0
        Random seed of the selection.
    drop_nulls : bool, default True
        Whether to omit pixels that are masked in any band, before `n` pixels are selected;
        ``TableResult.dropped`` is their number. False: write NaN.
    all_touched : bool, default False
        Whether to sample all pixels that a polygon touches, or only those whose center is inside.
    columns : sequence of str, optional
        Columns to write, in this order. By default the bands, the properties, ``longitude`` and ``latitude``.
    geometry : {"lonlat", None}, default "lonlat"
        "lonlat": also write the longitude (-180 to 180) and latitude of the center of the pixel (EPSG:4326).
        None: omit them.
    patch_dimensions : int or (width, height), optional
        Write the patch of this size around each pixel instead of its value: bands become columns of shape
        (height, width), those with additional dimensions of shape (channel, height, width). The sampled pixel
        has the index ``(n - 1) // 2`` on each axis, as in Earth Engine; it alone decides about `class_band`
        and `drop_nulls`. `xee_tf.tf_dataset` and `xee_tf.open_table` read the size from the manifest.
    default_value : float, default 0
        Value of the pixels of a patch that are masked or outside the raster. With `patch_dimensions` only.
    crs : object, optional
        CRS of the image, if it has none or a wrong one: anything that pyproj accepts.
    transform : Affine or sequence of float, optional
        Affine transform of the image, if it has none or a wrong one.
    if_exists : {"error", "overwrite", "resume"}, default "error"
        What to do if the file exists. "resume" returns it if it was written with "resume" from the same
        raster and features, and raises an error otherwise; see `identity`.
    progress : bool, default False
        Whether to show a progress bar.
    compute : bool, default True
        If False, return a Delayed and write nothing. Computing it checks `if_exists` again.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    TableResult or Delayed
        The file and its columns, or a Delayed that computes them if `compute` is False.

    Raises
    ------
    OptionError
        If a feature has no geometry; if all points or polygons are outside the raster, or no polygon contains
        the center of a pixel (a warning if only some are affected); if a name is not found or not unique; or
        if there is no pixel to write.
    GeoreferenceError
        If the raster or `where` has no CRS.
    DestinationExistsError
        If the file exists and `if_exists` is "error".
    DestinationError
        If the file cannot be written.

    Notes
    -----
    One task joins all rows: the table must fit in memory, but not the raster. A pixel in two polygons becomes
    two rows, with the properties of each polygon.

    A table of patches need not fit in memory. If it has more than 64 MiB, its patches wait in a temporary
    file until they are written in order: beside a local destination, else in the folder for temporary files.
    On a cluster that writes to an object store, and with ``compute=False`` if the destination is not local,
    they wait in the memory of the workers. With `n`, pixels are selected first, even if `compute` is False;
    if the selection depends on `class_band` or `drop_nulls`, the chunks around the selected pixels are loaded
    again.

    Examples
    --------
    >>> import geopandas, tempfile, xee_tf
    >>> scene = xr.Dataset(
    ...     {"B4": (("y", "x"), [[1.0, 2.0], [3.0, 4.0]])}, {"y": [45.0, 15.0], "x": [500015.0, 500045.0]}
    ... )
    >>> points = geopandas.points_from_xy([500050, 500001], [10, 59], crs="EPSG:32633")
    >>> sites = geopandas.GeoDataFrame({"site": ["oak", "fir"]}, geometry=points)
    >>> prefix = tempfile.mkdtemp() + "/samples"
    >>> result = xee_tf.sample_table(scene, sites, prefix, geometry=None, crs="EPSG:32633")
    >>> xee_tf.open_table(result.path)
        B4 site
    0  4.0  oak
    1  1.0  fir

    Patches of 3 x 3 pixels, and their labels:

    >>> result = xee_tf.sample_table(
    ...     scene, sites, prefix, patch_dimensions=3, geometry=None, crs="EPSG:32633", if_exists="overwrite"
    ... )
    >>> table = xee_tf.open_table(result)
    >>> table["B4"][0]
    array([[1., 2., 0.],
           [3., 4., 0.],
           [0., 0., 0.]], dtype=float32)
    >>> table["site"].tolist()
    ['oak', 'fir']
    """
    check_flags(progress=progress, compute=compute, drop_nulls=drop_nulls, all_touched=all_touched)
    target = check_target(destination, if_exists, storage_options)
    one_of("geometry", geometry, ("lonlat", None))
    dataset = whole_image(image, "sample", crs=crs, transform=transform)
    georef = read_georef(dataset, crs=crs, transform=transform)
    size = _patch_size(patch_dimensions, default_value)
    bands = SourceBands.of(dataset, georef)
    features, places_crs, table = _features(where, georef, properties)
    # Raise for unsupported columns here, not in a worker.
    values = {name: column_values(table[name], name) for name in table.columns}
    lonlat = LONLAT if geometry else ()
    names = _column_names(bands.names, list(table.columns), lonlat, columns)
    layout = chunk_blocks(chunk_grids(bands.arrays))
    places = find_sample_pixels(features, places_crs, georef, layout, all_touched=all_touched)
    scalar = [band.name for band in bands.columns if not band.shape]
    choice = Choice.of(n, class_band, seed, scalar, table)
    source: LazyTable | Callable[[TableStore], LazyTable]
    if size is None:
        table = table[[name for name in table.columns if name in names]]
        join = _JoinSamples(bands.columns, choice, table, georef, tuple(names))
        sampler = Sampler(bands.columns, bands.rules, places.find, drop_nulls, choice)
        source = _sample_graph(sampler, places, join, layout, bands)
    else:
        _check_patch_bytes(bands, names, size)
        drop_later = drop_nulls and choice is None
        choose = partial(choose_pixels, bands, places, layout, choice, drop_nulls=drop_nulls)
        around = PatchTable(
            bands if drop_later else bands.only(names),
            values,
            georef,
            tuple(names),
            size,
            float(np.clip(default_value, -_LARGEST, _LARGEST)),
            drop_later,
        )
        source = partial(_patch_graph, around, choose, compute=compute, progress=progress)
    known = None
    if if_exists == "resume":
        parts: dict[str, Any] = {
            "the list of columns": names,
            "the grid of the raster": repr(georef),
            "how the bands are read": repr(bands.rules),
            "the option n": n,
            "the option class_band": class_band,
            "the option seed": seed,
            "the option drop_nulls": drop_nulls,
            "the option all_touched": all_touched,
        }
        if size is not None:
            parts |= {
                "the option patch_dimensions": size.xy,
                "the option default_value": float(default_value),
            }
        inputs = dict(zip(bands.names, bands.arrays, strict=True)) | {"where": where}
        known = run_identity(parts, inputs, IdentityOptions(identity=identity).identity)
    return write_table(source, target, known, if_exists=if_exists, progress=progress, compute=compute)


def _check_patch_bytes(bands: SourceBands, names: Sequence[str], size: Size) -> None:
    """Raise an error if the patches around a single pixel do not fit into a record or into memory."""
    cut = [column for column in bands.columns if column.name in names]
    record = 4 * size.pixels * sum(column.size for column in cut)
    available = psutil.virtual_memory().total
    # Beside the record itself: the patch before it is encoded, and the window of a block, often in float64.
    needed = 4 * record
    if record <= MOST_RECORD_BYTES and needed <= available:
        return
    limit = f"a record can have {format_bytes(MOST_RECORD_BYTES)}"
    if record <= MOST_RECORD_BYTES:
        limit = f"to write it takes {format_bytes(needed)} of memory, and there are {format_bytes(available)}"
    raise OptionError(
        f"patch_dimensions={size.xy} is too large: the {counted(len(cut), 'band')} of a patch have "
        f"{format_bytes(record)}, but {limit}. The size is in pixels: pass a smaller one, such as (33, 33), "
        "or select bands with columns=[...]."
    )


def _patch_size(patch_dimensions: Any, default_value: Any) -> Size | None:
    """Return the size of the patches; None if pixels are sampled."""
    check_default_value(default_value, finite=False)
    if patch_dimensions is not None:
        return Size.from_xy(patch_dimensions, "patch_dimensions")
    if default_value != 0:
        raise OptionError(
            f"default_value={default_value!r} is written in patches only: pass patch_dimensions=, such as "
            "(33, 33), or omit it. In rows of single pixels, masked bands are NaN, with drop_nulls=False."
        )
    return None


def _features(
    where: Any, georef: GeoRef, properties: Sequence[str] | None
) -> tuple[pd.Series[Any], Any, pd.DataFrame]:
    """Return the geometries, their CRS, and the properties to copy."""
    if where is None:
        geometries, crs, table = pd.Series([_outline(georef)]), georef.crs, pd.DataFrame(index=range(1))
    else:
        geometries, crs, table = _read_features(where)
    if properties is not None:
        wanted = read_names(properties, "properties", ["site", "landcover"], allow_empty=True)
        unknown = [name for name in wanted if name not in table.columns]
        if unknown:
            raise OptionError(f"Properties {unknown} not found; available: {list(table.columns)}.")
        table = table[list(wanted)]
    return geometries, crs, table


def _outline(georef: GeoRef) -> Any:
    """Return the outline of the raster as a polygon."""
    import shapely

    width, height = georef.shape.xy
    corners: list[tuple[float, float]] = [(0, 0), (width, 0), (width, height), (0, height)]
    outline = shapely.Polygon([georef.affine @ corner for corner in corners])
    if (turn := full_turn(georef.crs)) is not None:  # no edge may span half the globe
        outline = shapely.segmentize(outline, turn / 8)
    return outline


def _read_features(where: Any) -> tuple[Any, Any, pd.DataFrame]:
    # Without GeoPandas, no object is of its types: the wrong type is reported first.
    if not isinstance(where, pd.Series | pd.DataFrame):
        raise _where_error(where)
    with extra("tables", "Sampling at points or in polygons"):
        import geopandas as gpd

    if isinstance(where, gpd.GeoSeries):
        where = where.to_frame("geometry").set_geometry("geometry")
    if not isinstance(where, gpd.GeoDataFrame):
        raise _where_error(where)
    if where.active_geometry_name is None:
        raise OptionError(
            "The GeoDataFrame has no geometry column: set it with where.set_geometry(...), or pass points or "
            "polygons as a GeoSeries."
        )
    geometries = where.geometry
    return geometries, geometries.crs, pd.DataFrame(where.drop(columns=geometries.name))


def _where_error(where: Any) -> OptionError:
    fix = "Convert coordinates to points with geopandas.GeoSeries.from_xy(x, y, crs='EPSG:4326')."
    if isinstance(where, pd.DataFrame):  # its other columns are the labels
        fix = (
            "Make points of its coordinates: geopandas.GeoDataFrame(table, "
            "geometry=geopandas.points_from_xy(table['lon'], table['lat']), crs='EPSG:4326')."
        )
    elif isinstance(where, str | os.PathLike):
        fix = f"Open the file first: geopandas.read_file({str(where)!r})."
    return OptionError(
        "where must be a GeoDataFrame or GeoSeries of points or polygons, or None; got "
        f"{type(where).__name__}. {fix}"
    )


def _column_names(
    bands: list[str], properties: list[Any], lonlat: Sequence[str], columns: Sequence[str] | None
) -> list[str]:
    counts = Counter([*bands, *properties, *lonlat])
    duplicates = [name for name, count in counts.items() if count > 1]
    if duplicates:
        raise OptionError(
            f"Column names must be unique, but {duplicates} appear more than once in the bands {bands}, the "
            f"properties {properties} and {list(lonlat)}: select properties with properties=[...], or rename "
            "bands."
        )
    return select_columns([*bands, *properties, *lonlat], columns)


@dataclass(frozen=True)
class _JoinSamples:
    """The final task: join the pixels of all blocks to rows, in the order of the features."""

    columns: tuple[TableColumn, ...]
    choice: Choice | None
    table: pd.DataFrame
    georef: GeoRef
    names: tuple[str, ...]

    def __call__(self, samples: Sequence[Sample]) -> Rows:
        sample = join_samples(samples, self.choice, self.columns)
        found: dict[str, tuple[TableColumn, Values]] = {}
        for column in self.columns:
            first = first_plane(self.columns, column.name)
            planes = sample.values[:, first : first + column.size]
            found[column.name] = column, planes.reshape(-1, *column.shape)
        for name in self.table.columns:
            found[name] = column_values(self.table[name].iloc[sample.numbers], name)
        if set(LONLAT) & set(self.names):
            lonlat = lonlat_of_pixels(self.georef, sample.rows, sample.columns)
            found |= {name: (TableColumn(name), v) for name, v in zip(LONLAT, lonlat, strict=True)}
        return Rows.of((found[name] for name in self.names), sample.counts)


def _patch_graph(
    around: PatchTable,
    choose: Callable[..., Sample],
    store: TableStore,
    *,
    compute: bool,
    progress: bool,
) -> LazyTable:
    """Select the pixels, and build the graph of the patches around them."""
    return around.graph(choose(progress=progress), store, compute=compute)


def _sample_graph(
    sampler: Sampler, places: SamplePixels, join: _JoinSamples, layout: BlockLayout, bands: SourceBands
) -> LazyTable:
    """Build the graph: a task for each block with pixels to sample, and one that joins the samples."""
    run = uuid.uuid4().hex[:12]
    blocks = places.by_block
    job = BlockJob(f"sample-{run}", bands.arrays, bands.names, layout, sampler, blocks=blocks, values=blocks)
    graph, [sampled] = work_on_blocks([job])
    needed = list(sampled.values())
    return LazyTable([add_task(graph.tasks, f"samples-{run}", join, needed)], graph)
