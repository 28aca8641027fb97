"""Sampling a raster into a table: at points, in polygons, so many pixels of each class."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from affine import Affine

from xee_tf.blocks import BandRule, Block, BlockAxis, BlockLayout, Pieces, assemble
from xee_tf.errors import OptionError
from xee_tf.extras import extra
from xee_tf.geometry import PatchAxis
from xee_tf.georef import (
    GeoRef,
    apply_affine,
    band_nodata,
    full_turn,
    plane_array,
    point_transformer,
    raster_variables,
    read_georef,
    whole_image,
    wrap_longitude,
)
from xee_tf.graph import BlockJob, Delayed, add_task, chunk_grids, work_on_blocks
from xee_tf.options import IfExists, check_flags, one_of, spelled
from xee_tf.sampling import Choice, Places, Sample, find_places, first_plane
from xee_tf.sidecars import TableColumn
from xee_tf.storage import PathLike
from xee_tf.tables.export import TableResult, check_target, write_table
from xee_tf.tables.options import SAMPLE_SPELLING
from xee_tf.tables.rows import Rows, Values, select_columns
from xee_tf.tables.sources import LONLAT, Geometry, LazyTable
from xee_tf.tables.values import column_values

__all__ = ["sample_table"]

_CHUNK_SIDE = 1024


@spelled(SAMPLE_SPELLING)
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
    crs: Any = None,
    transform: Any = None,
    if_exists: IfExists = "error",
    progress: bool = False,
    compute: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> TableResult | Delayed:
    """Sample a raster into a table of records: Earth Engine's ``sampleRegions`` and ``stratifiedSample``.

    A row is a pixel: its value in each band, and the properties of the point or polygon that it is taken for.
    Only chunks that hold a point, or meet a polygon, are loaded, each of them once. What is written depends
    neither on how the raster is chunked nor on the scheduler.

    Parameters
    ----------
    image : Dataset, DataArray or sequence of them
        As for `xee_tf.export_image`. A band with further dimensions becomes an array-valued column.
    where : GeoDataFrame, GeoSeries or None
        Points: the pixel under each of them, in their order. Polygons: every pixel whose centre is inside, by
        polygon, then row-major. None: every pixel of the raster; for use with `n`. In any CRS; longitudes may
        be in -180..180 or in 0..360, whichever the raster has, and an edge of a polygon that spans more than
        180 degrees crosses the antimeridian.
    destination : str or path-like
        Prefix of the file ``<destination>.tfrecord.gz``.
    properties : sequence of str, optional
        Columns of `where` to copy. Default: all but the geometry.
    n : int or mapping of class to int, optional
        Pixels to take at random of each class; all of them where there are fewer. A mapping names the classes
        to take and how many of each (Earth Engine's ``classValues`` and ``classPoints``).
    class_band : str, optional
        The band or the property that holds the class. Default: all pixels are one class.
    seed : int
        Another one gives another sample.
    drop_nulls : bool
        Leave out pixels that are masked in any band, before `n` of them are chosen; ``TableResult.dropped``
        counts them. False: write NaN.
    all_touched : bool
        Take all pixels that a polygon touches.
    columns : sequence of str, optional
        Columns to write, in this order: bands, properties, ``longitude``, ``latitude``. Default: all of them.
    geometry : {"lonlat", None}
        "lonlat": also write longitude (-180 to 180) and latitude of the pixel's centre (EPSG:4326).
    crs, transform : optional
        CRS and affine of the image, where it has none or a wrong one.
    if_exists, progress, compute, storage_options
        As for `xee_tf.export_table`.

    Returns
    -------
    TableResult or Delayed

    Raises
    ------
    OptionError
        If a feature has no geometry; every point or polygon is outside the raster, or no polygon covers the
        centre of a pixel (if that is so of some, there is a warning); names are unknown or not unique; no
        pixel is left.
    GeoreferenceError
        If the raster or `where` has no CRS.
    DestinationExistsError
        If the file exists and `if_exists` is "error".

    Notes
    -----
    The rows come together in one task: the table must fit in memory, the raster need not. A pixel in two
    polygons gives two rows, one with the properties of each.

    Examples
    --------
    >>> import geopandas, tempfile
    >>> scene = xr.Dataset(
    ...     {"B4": (("y", "x"), [[1.0, 2.0], [3.0, 4.0]])}, {"y": [45.0, 15.0], "x": [500015.0, 500045.0]}
    ... )
    >>> points = geopandas.points_from_xy([500050, 500001], [10, 59], crs="EPSG:32633")
    >>> sites = geopandas.GeoDataFrame({"site": ["oak", "fir"]}, geometry=points)
    >>> prefix = tempfile.mkdtemp() + "/samples"
    >>> result = sample_table(scene, sites, prefix, geometry=None, crs="EPSG:32633")
    >>> from xee_tf.tables.read import open_table
    >>> open_table(result.path)
        B4 site
    0  4.0  oak
    1  1.0  fir
    """
    check_flags(progress=progress, compute=compute, drop_nulls=drop_nulls, all_touched=all_touched)
    target = check_target(destination, if_exists, storage_options)
    one_of("geometry", geometry, ("lonlat", None))
    dataset = whole_image(image, "sample", crs=crs, transform=transform)
    georef = read_georef(dataset, crs=crs, transform=transform)
    bands, rules, arrays = _read_bands(dataset, georef)
    features, places_crs, table = _features(where, georef, properties)
    for name in table.columns:
        column_values(table[name], name)  # what cannot be written is refused now, not in a worker
    lonlat = LONLAT if geometry else ()
    names = _names([band.name for band in bands], list(table.columns), lonlat, columns)
    layout = _lay_out(arrays)
    sampler = _Sampler(
        columns=bands,
        rules=rules,
        places=find_places(features, places_crs, georef, layout, all_touched=all_touched),
        drop_nulls=drop_nulls,
        choice=Choice.of(n, class_band, seed, [band.name for band in bands if not band.shape], table),
    )
    table = table[[name for name in table.columns if name in names]]
    join = _JoinSamples(bands, sampler.choice, table, georef, tuple(names))
    source = _sample(sampler, join, layout, arrays)
    return write_table(source, target, if_exists=if_exists, progress=progress, compute=compute)


def _read_bands(
    dataset: xr.Dataset, georef: GeoRef
) -> tuple[tuple[TableColumn, ...], tuple[BandRule, ...], list[Any]]:
    """Column, rule and chunked array of each band: (y, x), or (step, y, x) of one with further dimensions."""
    y, x = georef.y_dim, georef.x_dim
    columns, rules, arrays = [], [], []
    for key, variable in raster_variables(dataset, x, y):
        name = str(key)
        if variable.dtype.kind not in "biuf":
            raise OptionError(
                f"Band {name!r} has dtype {variable.dtype}: a table holds numbers. Convert it, for example "
                f"ds[{name!r}].astype('float32'), or leave it out."
            )
        steps = [dim for dim in variable.dims if dim not in (y, x) and variable.sizes[dim] != 1]
        column = TableColumn(name, "float", tuple(variable.sizes[dim] for dim in steps))
        array = plane_array(variable, steps, y, x, sides=(_CHUNK_SIDE, _CHUNK_SIDE))
        rule = BandRule.of(
            array.chunks,
            dtype=np.result_type(variable.dtype, np.float32).str,
            default=np.nan,
            nodata=band_nodata(variable, name),
        )
        columns.append(column)
        rules.append(rule)
        arrays.append(array)
    if not columns:
        raise OptionError("There is nothing to sample: the image has no bands.")
    return tuple(columns), tuple(rules), arrays


def _features(
    where: Any, georef: GeoRef, properties: Sequence[str] | None
) -> tuple[pd.Series[Any], Any, pd.DataFrame]:
    """Geometries, their CRS, and the properties to copy."""
    if where is None:
        geometries, crs, table = pd.Series([_outline(georef)]), georef.crs, pd.DataFrame(index=range(1))
    else:
        geometries, crs, table = _read_features(where)
    if properties is not None:
        wanted = [properties] if isinstance(properties, str) else list(properties)
        unknown = [name for name in wanted if name not in table.columns]
        if unknown:
            raise OptionError(
                f"The properties {unknown} are no columns of the features: {list(table.columns)}."
            )
        table = table[wanted]
    return geometries, crs, table


def _outline(georef: GeoRef) -> Any:
    """The whole raster as a polygon."""
    import shapely

    width, height = georef.shape.xy
    corners: list[tuple[float, float]] = [(0, 0), (width, 0), (width, height), (0, height)]
    outline = shapely.Polygon([georef.affine @ corner for corner in corners])
    if (turn := full_turn(georef.crs)) is not None:  # no edge goes the short way around the globe
        outline = shapely.segmentize(outline, turn / 8)
    return outline


def _read_features(where: Any) -> tuple[Any, Any, pd.DataFrame]:
    with extra("tables", "Sampling at points or in polygons"):
        import geopandas as gpd

    if isinstance(where, gpd.GeoSeries):
        where = where.to_frame("geometry").set_geometry("geometry")
    if not isinstance(where, gpd.GeoDataFrame):
        raise OptionError(
            "A raster is sampled at the points or in the polygons of a GeoDataFrame or GeoSeries; got "
            f"{type(where).__name__}. geopandas.points_from_xy(x, y, crs=...) makes points of coordinates."
        )
    if where.active_geometry_name is None:
        raise OptionError(
            "The GeoDataFrame has no geometry column: set it with where.set_geometry(...), or give points or "
            "polygons as a GeoSeries."
        )
    geometries = where.geometry
    return geometries, geometries.crs, pd.DataFrame(where.drop(columns=geometries.name))


def _names(
    bands: list[str], properties: list[Any], lonlat: Sequence[str], columns: Sequence[str] | None
) -> list[str]:
    counts = Counter([*bands, *properties, *lonlat])
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise OptionError(
            f"The names {twice} would stand for two columns each, of the bands {bands}, the properties "
            f"{properties} and {list(lonlat)}: choose with properties= which to copy, or rename bands."
        )
    return select_columns([*bands, *properties, *lonlat], columns)


def _lay_out(arrays: Sequence[Any]) -> BlockLayout:
    """Blocks that are the chunks of most bands: a chunk where nothing is sampled is not loaded."""
    grids = chunk_grids(arrays)
    y, x = Counter((grid.y, grid.x) for grid in grids).most_common(1)[0][0]
    return BlockLayout(_axis(y), _axis(x), grids)


def _axis(edges: tuple[int, ...]) -> BlockAxis:
    return BlockAxis(edges, edges[-1], PatchAxis(start=0, patch=1, margin=0, count=edges[-1]))


@dataclass(frozen=True)
class _Sampler:
    """The work of one block: put its bands together and pick out pixels."""

    columns: tuple[TableColumn, ...]
    rules: tuple[BandRule, ...]
    places: Places
    drop_nulls: bool
    choice: Choice | None

    def __call__(self, layout: BlockLayout, block: Block, pieces: Pieces) -> Sample:
        window = layout.window(*block)
        numbers, rows, columns = self.places.pixels(block, window)
        bands, _ = assemble(window, pieces, self.rules)
        down, across = rows - window.top, columns - window.left
        values = np.concatenate([band[:, down, across] for band in bands]).T.astype(np.float64)
        sample = Sample(numbers, rows, columns, values)
        if self.drop_nulls:
            whole = ~np.isnan(values).any(axis=1)
            sample = replace(sample[whole], dropped=int((~whole).sum()))
        return sample if self.choice is None else self.choice(sample, self.columns)


@dataclass(frozen=True)
class _JoinSamples:
    """The last work: all blocks' pixels as rows, in the order of the features."""

    columns: tuple[TableColumn, ...]
    choice: Choice | None
    table: pd.DataFrame
    georef: GeoRef
    names: tuple[str, ...]

    def __call__(self, samples: Sequence[Sample]) -> Rows:
        numbers, rows, across, sampled = (
            np.concatenate(part)
            for part in zip(*((s.numbers, s.rows, s.columns, s.values) for s in samples), strict=True)
        )
        dropped = sum(s.dropped for s in samples)
        sample = Sample(numbers, rows, across, sampled, dropped)
        if self.choice is not None:
            sample = self.choice(sample, self.columns)
        if not len(sample.numbers):
            raise OptionError(
                "No pixel is left to write: all are masked (drop_nulls=False keeps them), none has its "
                "centre in a polygon (all_touched=True takes those that are touched), or n asks for none."
            )
        sample = sample[np.lexsort((sample.columns, sample.rows, sample.numbers))]
        found: dict[str, tuple[TableColumn, Values]] = {}
        for column in self.columns:
            first = first_plane(self.columns, column.name)
            planes = sample.values[:, first : first + column.size]
            found[column.name] = column, planes.reshape(-1, *column.shape)
        for name in self.table.columns:
            found[name] = column_values(self.table[name].iloc[sample.numbers], name)
        if set(LONLAT) & set(self.names):
            centres = self.georef.affine @ Affine.translation(0.5, 0.5)
            points = apply_affine(centres, np.column_stack((sample.columns, sample.rows)))
            longitudes, latitudes = point_transformer(self.georef.crs, pyproj.CRS("EPSG:4326"))(points).T
            lonlat = wrap_longitude(longitudes), latitudes
            found |= {name: (TableColumn(name), v) for name, v in zip(LONLAT, lonlat, strict=True)}
        return Rows.of((found[name] for name in self.names), dropped)


def _sample(sampler: _Sampler, join: _JoinSamples, layout: BlockLayout, arrays: Sequence[Any]) -> LazyTable:
    """The graph: a task for each block that holds a pixel to sample, and one that joins their samples."""
    run = uuid.uuid4().hex[:12]
    graph, [blocks] = work_on_blocks([BlockJob(f"sample-{run}", arrays, layout, sampler)])
    needed = [blocks[block] for block in sorted(sampler.places.by_block)]
    return LazyTable([add_task(graph.tasks, f"samples-{run}", join, needed)], graph)
