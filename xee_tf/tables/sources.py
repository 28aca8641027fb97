"""Conversion of frames and Datasets to `Rows`, or to row groups that give `Rows`.

Frames and Datasets in memory are checked as a whole before anything is written, and then split. Lazy (Dask)
tables are checked partition by partition, when they are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import xarray as xr
from affine import Affine

from xee_tf.chunks import check_chunks, checked_chunk
from xee_tf.display import quoted
from xee_tf.errors import ChunkError, GeoreferenceError, OptionError
from xee_tf.georef import GeoRef, apply_affine, point_transformer, read_crs, same_crs, wrap_longitude
from xee_tf.graph import Graph, Ref, Sources
from xee_tf.options import one_of, read_names
from xee_tf.sidecars import SampleCounts, TableColumn, TablePatches
from xee_tf.storage import Staging
from xee_tf.tables.rows import Rows, Values, select_columns
from xee_tf.tables.values import column_values

__all__ = [
    "LONLAT",
    "Geometry",
    "LazyTable",
    "Table",
    "check_partition",
    "geometry_column",
    "lonlat_of_pixels",
    "read_table",
    "row_dimension",
    "table_type_error",
]

Table = Any
"""A pandas, GeoPandas or Dask frame, or a Dataset with one row dimension."""

Geometry = Literal["lonlat"]

LONLAT = ("longitude", "latitude")


def _return_rows(rows: Rows, number: int) -> Rows:
    return rows


@dataclass(frozen=True)
class LazyTable:
    """A table that is computed one row group at a time.

    Parameters
    ----------
    groups : sequence of Ref
        The row groups, in row order.
    graph : Graph
        The tasks of the table.
    read : callable
        Converts a row group and its number to `Rows`. By default, row groups are `Rows` already.
    local : Staging, optional
        The run on a local disk in whose folder tasks keep files, if it is not that of the table.
    patches : TablePatches, optional
        The patches, in a table of patches.
    counts : SampleCounts
        Numbers of the pixels from which the rows were sampled, before the row groups were formed.
    """

    groups: Sequence[Ref]
    graph: Graph
    read: Callable[[Any, int], Rows] = _return_rows
    local: Staging | None = None
    patches: TablePatches | None = None
    counts: SampleCounts = field(default_factory=SampleCounts)


def read_table(table: Table, columns: Sequence[str] | None, geometry: Geometry | None) -> Rows | LazyTable:
    """Return the rows of a table in memory, or the row groups of a lazy table."""
    one_of("geometry", geometry, ("lonlat", None))
    columns = None if columns is None else read_names(columns, "columns")
    if isinstance(table, xr.Dataset):
        return _read_dataset(table, columns)
    if isinstance(table, pd.DataFrame):
        return _FrameReader.of(table, columns, geometry)([table])
    meta = getattr(table, "_meta", None)
    if isinstance(meta, pd.DataFrame):
        reader = _FrameReader.of(meta, columns, geometry)
        return _lazy_table([table], reader)
    raise table_type_error(table)


def table_type_error(value: Any) -> OptionError:
    """Create the error for a value that is not a table."""
    hint = ""
    if isinstance(value, xr.DataArray):
        hint = " Convert it with array.to_dataset(name='B4')."
    elif isinstance(value, pd.Series) or isinstance(getattr(value, "_meta", None), pd.Series):
        hint = " Convert it with series.to_frame()."
    return OptionError(
        "table must be a pandas, GeoPandas or Dask DataFrame, or a Dataset with one row dimension; got "
        f"{type(value).__name__}.{hint}"
    )


def check_partition(frame: Any, columns: Sequence[Any], named: str, points: str | None = None) -> None:
    """Raise an error unless a Dask partition has the declared columns and points.

    Dask does not compare what a function returns with the ``meta`` of `dask.dataframe.map_partitions`.

    Raises
    ------
    ChunkError
        If the partition is not a DataFrame, or lacks columns.
    """
    fix = "Declare what the function returns: `meta` of dask.dataframe.map_partitions."
    if not isinstance(frame, pd.DataFrame):
        raise ChunkError(f"{named} of the table is a {type(frame).__name__} instead of a DataFrame. {fix}")
    found = list(frame.columns)
    if wrong := [name for name in columns if found.count(name) != 1]:
        raise ChunkError(
            f"{named} of the table does not have exactly one column named {wrong[0]!r}, which the table "
            f"declares; it has the columns {quoted(found)}. {fix}"
        )
    if points is not None and geometry_column(frame) != points:
        raise ChunkError(f"{named} of the table does not have the points {points!r}. {fix}")


def geometry_column(frame: pd.DataFrame) -> str | None:
    """Return the name of the geometry column of a frame, or None."""
    active: str | None = getattr(frame, "_geometry_column_name", None)
    return active if active in frame.columns else None


@dataclass(frozen=True)
class _FrameReader:
    """Picklable reader of frames with the same columns."""

    names: tuple[str, ...]
    points: str | None

    @classmethod
    def of(
        cls, frame: pd.DataFrame, columns: Sequence[str] | None, geometry: Geometry | None
    ) -> _FrameReader:
        active = geometry_column(frame)
        available = [name for name in frame.columns if name != active]
        points = geometry is not None and active is not None
        if points and (columns is None or set(LONLAT) & set(columns)):
            taken = [name for name in LONLAT if name in available]
            if taken:
                raise OptionError(
                    f"The table already has columns {quoted(taken)}, which are also the names of the "
                    "coordinates of its points. Rename them, or omit the points with geometry=None."
                )
        if points:
            available += LONLAT
        names = tuple(select_columns(available, columns))
        points = points and bool(set(LONLAT) & set(names))
        if points and getattr(frame, "crs", None) is None:
            raise GeoreferenceError(
                "The table's points have no CRS, which is required to compute longitude and latitude. Set "
                "it, for example with table.set_crs('EPSG:32633'), or omit the points with geometry=None."
            )
        return cls(names, active if points else None)

    def __call__(self, frames: Any, number: int | None = None) -> Rows:
        [frame] = frames
        if number is not None:
            columns = [name for name in self.names if self.points is None or name not in LONLAT]
            check_partition(frame, columns, f"Partition {number}", self.points)
        lonlat = {} if self.points is None else _lonlat(frame, number)
        describe = _row_describer(frame.index, number)
        return Rows.of(
            (TableColumn(name), lonlat[name])
            if name in lonlat
            else column_values(frame[name], name, describe)
            for name in self.names
        )


def _row_describer(index: Any, number: int | None = None) -> Callable[[int], str]:
    """Create a function that describes a row: its number, index label if different, and partition."""

    def describe(row: int) -> str:
        label = index[row] if index is not None else row
        index_label = "" if isinstance(label, int | np.integer) and label == row else f" (index {label!r})"
        return f"row {row}{index_label}" + ("" if number is None else f" of partition {number}")

    return describe


def _lonlat(frame: Any, number: int | None) -> dict[str, Values]:
    """Return the coordinates of points in EPSG:4326, with longitudes from -180 to 180."""
    points = frame.geometry
    describe = _row_describer(frame.index, number)

    def require_none(invalid: Any, problem: str) -> None:
        rows = np.flatnonzero(np.asarray(invalid))
        if rows.size:
            first, others = describe(int(rows[0])), f" ({rows.size} such rows)" if rows.size > 1 else ""
            raise OptionError(f"{first[0].upper()}{first[1:]} {problem}{others}.")

    omit = "or omit the points with geometry=None"
    require_none(points.isna() | points.is_empty, f"has no geometry. Drop such rows, {omit}")
    kinds = points.geom_type
    other = kinds != "Point"
    if other.any():
        kind = kinds[other].iloc[0]
        require_none(
            other,
            f"has a {kind}; expected a point. Convert the geometries to points, for example with "
            f"table.representative_point(), {omit}",
        )
    if not same_crs(read_crs(points.crs, "the table's points"), read_crs("EPSG:4326")):
        points = points.to_crs("EPSG:4326")
    x, y = points.x.to_numpy(), points.y.to_numpy()
    require_none(
        ~(np.isfinite(x) & np.isfinite(y)),
        f"has a point that cannot be converted to longitude and latitude. Check its coordinates and the CRS "
        f"{frame.crs.name}, {omit}",
    )
    wrong = (np.abs(x) > 360) | (np.abs(y) > 90)
    at = int(np.argmax(wrong))
    require_none(
        wrong,
        f"has a point at ({x[at]:.10g}, {y[at]:.10g}), which is not in degrees. Check its coordinates and "
        f"the CRS {frame.crs.name}, {omit}",
    )
    return dict(zip(LONLAT, (wrap_longitude(x), y), strict=True))


def lonlat_of_pixels(
    georef: GeoRef, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the longitudes, from -180 to 180, and the latitudes of the centers of pixels in EPSG:4326."""
    centres = georef.affine @ Affine.translation(0.5, 0.5)
    points = apply_affine(centres, np.column_stack((columns, rows)))
    longitudes, latitudes = point_transformer(georef.crs, pyproj.CRS("EPSG:4326"))(points).T
    return wrap_longitude(longitudes), latitudes


def _read_dataset(dataset: xr.Dataset, columns: Sequence[str] | None) -> Rows | LazyTable:
    rows = row_dimension(dataset)
    along = {
        name: variable
        for name, variable in dataset.variables.items()
        if rows in variable.dims and not (name in dataset.indexes and name not in dataset.data_vars)
    }
    others = [name for name in dataset.data_vars if rows not in dataset[name].dims and dataset[name].ndim]
    if columns is None and others:
        raise OptionError(
            f"The variables {others} do not have the row dimension {rows!r}: select the other variables with "
            "columns=[...]."
        )
    # Columns first, then coordinates of the rows.
    ordered = sorted(along, key=lambda name: name not in dataset.data_vars)
    names = select_columns(ordered, columns)
    checked = {name: check_chunks(along[name], f"Column {name!r}", axes=1) for name in names}
    chosen = {name: variable.transpose(rows, ...) for name, variable in checked.items()}
    if not any(variable.chunks for variable in chosen.values()):
        return Rows.of(column_values(_numpy(variable), name) for name, variable in chosen.items())
    table = xr.Dataset(chosen).drop_vars(dataset.indexes, errors="ignore")
    table = table.chunk({dim: -1 for dim in table.dims if dim != rows}).unify_chunks()
    if not all(variable.chunks for variable in table.variables.values()):
        table = table.chunk({rows: table.chunks[rows]})
    arrays = [table[name].data for name in names]
    return _lazy_table(arrays, _ArraysReader(tuple(map(_DeclaredColumn.of, names, arrays))))


def _lazy_table(collections: Sequence[Any], read: Callable[[Any, int], Rows]) -> LazyTable:
    """Create a table whose row groups are the chunks with the same number of all collections."""
    sources = Sources.of(collections, fused=True)
    graph, groups = sources.loads(sources.by_number())
    return LazyTable(list(groups.values()), graph, read)


@dataclass(frozen=True)
class _DeclaredColumn:
    """What Dask declares of the chunks of a column."""

    name: str
    starts: tuple[float, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, name: str, array: Any) -> _DeclaredColumn:
        return cls(name, tuple(np.cumsum([0, *array.chunks[0]])), array.shape[1:], array.dtype)

    def checked(self, values: Any, number: int) -> npt.NDArray[Any]:
        """Return a chunk in its declared dtype."""
        first, stop = self.starts[number : number + 2]
        named, known = f"Column {self.name!r}: chunk {number}", not math.isnan(stop)
        if known:
            named += f", with the rows {first} to {stop - 1},"
        rows = int(stop - first) if known else len(values) if np.ndim(values) else 0
        return checked_chunk(named, values, (rows, *self.shape), self.dtype)


@dataclass(frozen=True)
class _ArraysReader:
    columns: tuple[_DeclaredColumn, ...]

    def __call__(self, arrays: Any, number: int) -> Rows:
        describe = _row_describer(None, number)
        return Rows.of(
            column_values(column.checked(array, number), column.name, describe)
            for column, array in zip(self.columns, arrays, strict=True)
        )


def _numpy(variable: Any) -> Any:
    values = np.asarray(variable.values)
    return values if values.dtype.kind in "biufcmM" else values.astype(object)


def row_dimension(dataset: xr.Dataset) -> Hashable:
    """Return the row dimension of a Dataset: the dimension that all variables have."""
    dims = [variable.dims for variable in dataset.data_vars.values() if variable.ndim]
    single = {found[0] for found in dims if len(found) == 1}
    common = set(dims[0]).intersection(*dims[1:]) if dims else set()
    if len(single) == 1:
        return single.pop()
    if not single and len(common) == 1:
        return common.pop()
    raise OptionError(
        "The variables of a Dataset must share one row dimension; got the dimensions "
        f"{sorted({tuple(map(str, found)) for found in dims})}. Stack the dimensions into one, for example "
        "ds.stack(row=('y', 'x')).reset_index('row'), or select variables."
    )
