"""Sample a raster into a table: at points, in polygons, or a number of pixels per class."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from affine import Affine

from xee_tf.blocks import BandRule, Block, BlockAxis, BlockLayout, Pieces, assemble
from xee_tf.display import abbreviated, counted
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
from xee_tf.identity import IdentityOptions, run_identity
from xee_tf.options import IfExists, check_flags, one_of, read_names, spelled
from xee_tf.sampling import Choice, FindPixels, Sample, SamplePixels, find_sample_pixels, first_plane
from xee_tf.sidecars import TableColumn
from xee_tf.signals import interruptible
from xee_tf.storage import PathLike
from xee_tf.tables.export import TableResult, check_target, write_table
from xee_tf.tables.options import SAMPLE_SPELLING
from xee_tf.tables.rows import Rows, Values, select_columns
from xee_tf.tables.sources import LONLAT, Geometry, LazyTable
from xee_tf.tables.values import column_values

__all__ = ["sample_table"]

_CHUNK_SIDE = 1024


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
    crs: Any = None,
    transform: Any = None,
    if_exists: IfExists = "error",
    identity: str | None = None,
    progress: bool = False,
    compute: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> TableResult | Delayed:
    """Sample a raster into a table, like Earth Engine's ``sampleRegions`` and ``stratifiedSample``.

    Each row is a pixel: its value in each band, and the properties of its point or polygon. Only chunks that
    contain a point or intersect a polygon are loaded, each of them once. The result does not depend on the
    chunks of the raster or on the scheduler.

    Parameters
    ----------
    image : Dataset, DataArray or sequence of them
        The raster, as for `xee_tf.export_image`. A band with additional dimensions becomes an array-valued
        column.
    where : GeoDataFrame, GeoSeries or None
        Points: sample the pixel at each point, in the order of the points. Polygons: sample all pixels whose
        centre is inside, by polygon, then row-major. None: sample all pixels of the raster; for use with `n`.
        Coordinates may be in any CRS. Longitudes may range from -180 to 180 or from 0 to 360, regardless of
        the raster, and an edge of a polygon that spans more than 180 degrees crosses the antimeridian.
    destination : str or path-like
        Prefix of the file ``<destination>.tfrecord.gz``: a local path or an fsspec URL.
    properties : sequence of str, optional
        Columns of `where` to copy. By default all columns except the geometry.
    n : int or mapping of class to int, optional
        Number of pixels to select at random from each class; all pixels of a class that has fewer. A mapping
        selects from its classes only (Earth Engine's ``classValues`` and ``classPoints``).
    class_band : str, optional
        Band or property that holds the classes. By default all pixels are in the same class.
    seed : int, default 0
        Random seed of the selection.
    drop_nulls : bool, default True
        Whether to omit pixels that are masked in any band, before `n` pixels are selected;
        ``TableResult.dropped`` is their number. False: write NaN.
    all_touched : bool, default False
        Whether to sample all pixels that a polygon touches, or only those whose centre is inside.
    columns : sequence of str, optional
        Columns to write, in this order. By default the bands, the properties, ``longitude`` and ``latitude``.
    geometry : {"lonlat", None}, default "lonlat"
        "lonlat": also write the longitude (-180 to 180) and latitude of the centre of the pixel (EPSG:4326).
        None: omit them.
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
        the centre of a pixel (a warning if only some are affected); if a name is not found or not unique; or
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
    """
    check_flags(progress=progress, compute=compute, drop_nulls=drop_nulls, all_touched=all_touched)
    target = check_target(destination, if_exists, storage_options)
    one_of("geometry", geometry, ("lonlat", None))
    dataset = whole_image(image, "sample", crs=crs, transform=transform)
    georef = read_georef(dataset, crs=crs, transform=transform)
    bands, rules, arrays = _read_bands(dataset, georef)
    features, places_crs, table = _features(where, georef, properties)
    for name in table.columns:
        column_values(table[name], name)  # raise for unsupported columns here, not in a worker
    lonlat = LONLAT if geometry else ()
    names = _column_names([band.name for band in bands], list(table.columns), lonlat, columns)
    layout = _block_layout(arrays)
    places = find_sample_pixels(features, places_crs, georef, layout, all_touched=all_touched)
    sampler = _Sampler(
        columns=bands,
        rules=rules,
        find=places.find,
        drop_nulls=drop_nulls,
        choice=Choice.of(n, class_band, seed, [band.name for band in bands if not band.shape], table),
    )
    table = table[[name for name in table.columns if name in names]]
    join = _JoinSamples(bands, sampler.choice, table, georef, tuple(names))
    source = _sample_graph(sampler, places, join, layout, arrays)
    known = None
    if if_exists == "resume":
        parts = {
            "the list of columns": names,
            "the grid of the raster": repr(georef),
            "how the bands are read": repr(rules),
            "the option n": n,
            "the option class_band": class_band,
            "the option seed": seed,
            "the option drop_nulls": drop_nulls,
            "the option all_touched": all_touched,
        }
        inputs = {band.name: array for band, array in zip(bands, arrays, strict=True)} | {"where": where}
        known = run_identity(parts, inputs, IdentityOptions(identity=identity).identity)
    return write_table(source, target, known, if_exists=if_exists, progress=progress, compute=compute)


def _read_bands(
    dataset: xr.Dataset, georef: GeoRef
) -> tuple[tuple[TableColumn, ...], tuple[BandRule, ...], list[Any]]:
    """Return the column, rule and chunked array, (y, x) or (step, y, x), of each band."""
    y, x = georef.y_dim, georef.x_dim
    columns, rules, arrays = [], [], []
    for key, variable in raster_variables(dataset, x, y):
        name = str(key)
        if variable.dtype.kind not in "biuf":
            raise OptionError(
                f"Band {name!r} has dtype {variable.dtype}; expected numbers. Convert it, for example with "
                f"ds[{name!r}].astype('float32'), or omit it."
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
        raise OptionError("The image has no bands to sample.")
    return tuple(columns), tuple(rules), arrays


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
    if isinstance(where, str | os.PathLike):
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


def _block_layout(arrays: Sequence[Any]) -> BlockLayout:
    """Lay out blocks as the chunks of most bands, so that chunks without samples are not loaded."""
    grids = chunk_grids(arrays)
    y, x = Counter((grid.y, grid.x) for grid in grids).most_common(1)[0][0]
    return BlockLayout(_axis(y), _axis(x), grids)


def _axis(edges: tuple[int, ...]) -> BlockAxis:
    return BlockAxis(edges, edges[-1], PatchAxis(start=0, patch=1, margin=0, count=edges[-1]))


@dataclass(frozen=True)
class _Sampler:
    """The task of one block: assemble its bands and select pixels."""

    columns: tuple[TableColumn, ...]
    rules: tuple[BandRule, ...]
    find: FindPixels
    drop_nulls: bool
    choice: Choice | None

    def __call__(self, layout: BlockLayout, block: Block, pieces: Pieces, places: Any) -> Sample:
        window = layout.window(*block)
        numbers, rows, columns = self.find(places, window)
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
    """The final task: join the pixels of all blocks to rows, in the order of the features."""

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
        classes = frozenset[float]().union(*(s.classes for s in samples))
        sample = Sample(numbers, rows, across, sampled, dropped)
        if self.choice is not None:
            sample = self.choice(sample, self.columns)
        if not len(sample.numbers):
            raise _no_pixels_error(self.choice, classes, dropped)
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


def _no_pixels_error(choice: Choice | None, classes: Collection[float], dropped: int) -> OptionError:
    """Create the error for a sample without pixels; `classes` are the classes of pixels that were found."""
    omitted = f" ({counted(dropped, 'masked pixel')} dropped)" if dropped else ""
    if choice is not None and isinstance(choice.quota, dict) and classes:
        wanted = abbreviated(key for key, count in choice.quota.items() if count)
        found = abbreviated(f"{each:.15g}" for each in sorted(classes))
        return OptionError(
            f"There are no pixels to write: n selects the classes {wanted}, but the sampled pixels have the "
            f"classes {found} in the band {choice.band!r}{omitted}."
        )
    return OptionError(
        f"There are no pixels to write{omitted}. To keep masked pixels, pass drop_nulls=False; to include "
        "all pixels that a polygon touches, pass all_touched=True."
    )


def _sample_graph(
    sampler: _Sampler, places: SamplePixels, join: _JoinSamples, layout: BlockLayout, arrays: Sequence[Any]
) -> LazyTable:
    """Build the graph: a task for each block with pixels to sample, and one that joins the samples."""
    run = uuid.uuid4().hex[:12]
    bands = [column.name for column in sampler.columns]
    blocks = places.by_block
    job = BlockJob(f"sample-{run}", arrays, bands, layout, sampler, blocks=blocks, values=blocks)
    graph, [sampled] = work_on_blocks([job])
    needed = list(sampled.values())
    return LazyTable([add_task(graph.tasks, f"samples-{run}", join, needed)], graph)
