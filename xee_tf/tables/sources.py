"""What a table may be, made one thing: column names, and row groups that give `Rows`.

Frames and Datasets in memory are checked as a whole before anything is written, and then cut. Lazy ones
(Dask) are looked at partition by partition, as they are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from xee_tf.errors import GeoreferenceError, OptionError
from xee_tf.georef import read_crs, same_crs, wrap_longitude
from xee_tf.graph import Graph, Ref, Sources
from xee_tf.options import one_of
from xee_tf.sidecars import TableColumn
from xee_tf.tables.rows import Rows, Values, select_columns
from xee_tf.tables.values import column_values

__all__ = [
    "Geometry",
    "LazyTable",
    "Table",
    "geometry_column",
    "no_table",
    "read_table",
    "row_dimension",
]

Table = Any
"""A pandas, GeoPandas or Dask frame, or a Dataset with one dimension of rows."""

Geometry = Literal["lonlat"]

LONLAT = ("longitude", "latitude")


def _as_it_is(rows: Rows, number: int) -> Rows:
    return rows


@dataclass(frozen=True)
class LazyTable:
    """A table that is computed row group by row group.

    Parameters
    ----------
    groups : sequence of Ref
        The row groups, in the order of the rows.
    graph : Graph
        The tasks of the table.
    read : callable
        ``read(row group, number)`` gives its `Rows`. Default: the row group itself.
    """

    groups: Sequence[Ref]
    graph: Graph
    read: Callable[[Any, int], Rows] = _as_it_is


def read_table(table: Table, columns: Sequence[str] | None, geometry: Geometry | None) -> Rows | LazyTable:
    """The rows of a table in memory, or how to come by those of a lazy one."""
    one_of("geometry", geometry, ("lonlat", None))
    if isinstance(table, xr.Dataset):
        return _read_dataset(table, columns)
    if isinstance(table, pd.DataFrame):
        return _FrameReader.of(table, columns, geometry)([table])
    meta = getattr(table, "_meta", None)
    if isinstance(meta, pd.DataFrame):
        reader = _FrameReader.of(meta, columns, geometry)
        return _lazy_table([table], reader)
    raise no_table(table)


def no_table(value: Any) -> OptionError:
    """The error that a value is no table."""
    hint = ""
    if isinstance(value, xr.DataArray):
        hint = " Name it: array.to_dataset(name='B4')."
    elif isinstance(value, pd.Series) or isinstance(getattr(value, "_meta", None), pd.Series):
        hint = " Use series.to_frame()."
    return OptionError(
        "A table is a pandas, GeoPandas or Dask frame, or a Dataset with one dimension of rows; got "
        f"{type(value).__name__}.{hint}"
    )


def geometry_column(frame: pd.DataFrame) -> str | None:
    """The column of a frame that is its geometry; None if there is none."""
    active: str | None = getattr(frame, "_geometry_column_name", None)
    return active if active in frame.columns else None


@dataclass(frozen=True)
class _FrameReader:
    """Reads frames of one kind; small and picklable."""

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
                    f"The table has columns {taken} already, which the points of its geometry would become "
                    "too. Rename them, or leave the points out with geometry=None."
                )
        if points:
            available += LONLAT
        names = tuple(select_columns(available, columns))
        points = points and bool(set(LONLAT) & set(names))
        if points and getattr(frame, "crs", None) is None:
            raise GeoreferenceError(
                "The table's points have no CRS, so that they have no longitude and latitude. Say what their "
                "coordinates are with table.set_crs('EPSG:32633'), or leave them out with geometry=None."
            )
        return cls(names, active if points else None)

    def __call__(self, frames: Any, number: int | None = None) -> Rows:
        [frame] = frames
        lonlat = {} if self.points is None else _lonlat(frame, number)
        describe = _describer(frame.index, number)
        return Rows.of(
            (TableColumn(name), lonlat[name])
            if name in lonlat
            else column_values(frame[name], name, describe)
            for name in self.names
        )


def _describer(index: Any, number: int | None = None) -> Callable[[int], str]:
    """Words for a row: its number, its label if that is another, its partition if there is one."""

    def describe(row: int) -> str:
        label = index[row] if index is not None else row
        named = "" if isinstance(label, int | np.integer) and label == row else f" (index {label!r})"
        return f"row {row}{named}" + ("" if number is None else f" of partition {number}")

    return describe


def _lonlat(frame: Any, number: int | None) -> dict[str, Values]:
    """The coordinates of points in EPSG:4326, longitudes in -180..180."""
    points = frame.geometry
    describe = _describer(frame.index, number)

    def refuse(bad: Any, words: str) -> None:
        rows = np.flatnonzero(np.asarray(bad))
        if rows.size:
            first, others = describe(int(rows[0])), f" ({rows.size} such rows)" if rows.size > 1 else ""
            raise OptionError(f"{first[0].upper()}{first[1:]} {words}{others}.")

    leave = "or write the table without points: geometry=None"
    refuse(points.isna() | points.is_empty, f"has no geometry. Drop such rows, {leave}")
    kinds = points.geom_type
    other = kinds != "Point"
    if other.any():
        kind = kinds[other].iloc[0]
        refuse(
            other,
            f"has a {kind}, and only points have a longitude and a latitude. Make points of them with "
            f"table.representative_point(), {leave}",
        )
    if not same_crs(read_crs(points.crs, "the table's points"), read_crs("EPSG:4326")):
        points = points.to_crs("EPSG:4326")
    x, y = points.x.to_numpy(), points.y.to_numpy()
    refuse(
        ~(np.isfinite(x) & np.isfinite(y)),
        f"has a point without longitude and latitude: is {frame.crs.name} its CRS? Correct it, {leave}",
    )
    wrong = (np.abs(x) > 360) | (np.abs(y) > 90)
    at = int(np.argmax(wrong))
    refuse(
        wrong,
        f"has a point at ({x[at]:.10g}, {y[at]:.10g}), which cannot be degrees: is {frame.crs.name} its CRS? "
        f"Correct it, {leave}",
    )
    return dict(zip(LONLAT, (wrap_longitude(x), y), strict=True))


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
            f"The variables {others} have no dimension {rows!r}, along which the rows of this table lie: "
            "leave them out with columns=."
        )
    # Columns first, then the coordinates that tell something about each row.
    ordered = sorted(along, key=lambda name: name not in dataset.data_vars)
    names = select_columns(ordered, columns)
    chosen = {name: along[name].transpose(rows, ...) for name in names}
    if not any(variable.chunks for variable in chosen.values()):
        return Rows.of(column_values(_numpy(variable), name) for name, variable in chosen.items())
    table = xr.Dataset(chosen).drop_vars(dataset.indexes, errors="ignore")
    table = table.chunk({dim: -1 for dim in table.dims if dim != rows}).unify_chunks()
    if not all(variable.chunks for variable in table.variables.values()):
        table = table.chunk({rows: table.chunks[rows]})
    return _lazy_table([table[name].data for name in names], _ArraysReader(tuple(names)))


def _lazy_table(collections: Sequence[Any], read: Callable[[Any, int], Rows]) -> LazyTable:
    """The table whose row groups are the chunks of all collections with the same number."""
    sources = Sources.of(collections, fused=True)
    graph, groups = sources.loads(sources.by_number())
    return LazyTable(list(groups.values()), graph, read)


@dataclass(frozen=True)
class _ArraysReader:
    names: tuple[str, ...]

    def __call__(self, arrays: Any, number: int) -> Rows:
        describe = _describer(None, number)
        named = zip(self.names, arrays, strict=True)
        return Rows.of(column_values(np.asarray(array), name, describe) for name, array in named)


def _numpy(variable: Any) -> Any:
    values = np.asarray(variable.values)
    return values if values.dtype.kind in "biufcmM" else values.astype(object)


def row_dimension(dataset: xr.Dataset) -> Hashable:
    """The dimension along which the rows lie: that of all variables."""
    dims = [variable.dims for variable in dataset.data_vars.values() if variable.ndim]
    single = {found[0] for found in dims if len(found) == 1}
    common = set(dims[0]).intersection(*dims[1:]) if dims else set()
    if len(single) == 1:
        return single.pop()
    if not single and len(common) == 1:
        return common.pop()
    raise OptionError(
        f"The rows of a Dataset lie along one dimension that all its variables have; here they have "
        f"{sorted({tuple(map(str, found)) for found in dims})}. Stack the dimensions into one, for example "
        "ds.stack(row=('y', 'x')).reset_index('row'), or select variables."
    )
