"""Predictions for the rows of a table: columns in, columns added."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from xee_tf.connector import connected
from xee_tf.errors import OptionError
from xee_tf.models import (
    STRING,
    Item,
    ModelSpec,
    Output,
    check_overrides,
    check_required,
    listed,
    missing_error,
    plan_feeds,
    plan_outputs,
)
from xee_tf.names import check_key, check_variables
from xee_tf.predict.calling import batch_of, predict_batches
from xee_tf.tables import Table, column_values, geometry_column, no_table, row_dimension

__all__ = ["RowCaller", "predict_properties", "row_caller"]


def predict_properties(spec: ModelSpec, table: Table, *, batch_size: int | None = None) -> Any:
    """Add predictions to a table; see `xee_tf.Model.predict_properties`."""
    if isinstance(table, xr.Dataset):
        return _predict_dataset(spec, table, batch_size)
    if isinstance(table, pd.DataFrame):
        return _predict_frame(table, row_caller(spec, _columns(table), batch_size, list(table.columns)))
    meta = getattr(table, "_meta", None)
    if isinstance(meta, pd.DataFrame):
        caller = row_caller(spec, _columns(meta), batch_size, list(meta.columns))
        empty = _with_columns(
            meta, {out.name: np.empty((0, *out.shape), out.dtype) for out in caller.outputs}
        )
        return table.map_partitions(_predict_frame, caller, meta=empty)
    raise no_table(table)


@dataclass(frozen=True)
class RowCaller:
    """Calls a model with the `columns` that it may want; small and picklable."""

    spec: ModelSpec
    columns: tuple[str, ...]
    outputs: tuple[Output, ...]
    batch_size: int | None

    def call(self, columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Predict.

        Parameters
        ----------
        columns : mapping from str to ndarray
            For each of `columns` an array ``(rows, *shape)``; of dtype object for strings.

        Returns
        -------
        dict from str to ndarray
            ``(rows, *shape)`` for each output.
        """
        count = len(next(iter(columns.values())))
        connector = self.spec.connector
        found = {out.name: np.empty((count, *out.shape), out.dtype) for out in self.outputs}
        if not count:
            return found
        signature = connected(connector).signature
        items = {name: Item(values.dtype, values.shape[1:]) for name, values in columns.items()}
        feeds = plan_feeds(self.spec, signature, items, table=True)
        size = sum(feed.itemsize for feed in feeds)
        batch, fixed = batch_of(connector, signature, self.batch_size, size)
        for start, sent, answer in predict_batches(connector, feeds, columns, {}, count, batch, fixed=fixed):
            stop = min(start + sent, count)
            for out in self.outputs:
                found[out.name][start:stop] = out.take(answer, [(sent,)], connector)[: stop - start]
        return found


def row_caller(
    spec: ModelSpec, columns: Sequence[str], batch_size: int | None = None, taken: Sequence[Hashable] = ()
) -> RowCaller:
    """Check a model against the columns of a table, and make what calls it.

    Parameters
    ----------
    spec, columns, batch_size
        The model, the columns that it may see, and the rows in a call.
    taken : sequence
        Other names that the table has: of its geometry, or of dimensions and coordinates.

    Raises
    ------
    OptionError, ModelError
        If columns are missing, or the model does not tell what it gives and nobody said it.
    """
    signature = spec.connector.signature()
    inputs = set(signature.inputs or ())
    wanted = {*spec.input_properties, *(spec.inputs or ()), *inputs}
    # Where columns are named, by the user or by the model, no other is looked at.
    named = bool(spec.input_properties or spec.inputs or (inputs and inputs <= set(columns)))
    chosen = tuple(name for name in columns if name in wanted or not named)
    held = f"The table has the columns {listed(columns)}."
    check_required(spec, columns, held, table=True)
    if not chosen:
        raise missing_error(spec, sorted(wanted), held, table=True)
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise OptionError(
            f"The table has the columns {twice} twice: drop or rename one of each, for example with "
            "table.loc[:, ~table.columns.duplicated()]."
        )
    check_overrides(spec, columns, "table")
    batch_of(spec.connector, signature, batch_size, 1)
    outputs = plan_outputs(
        spec.output_properties, signature.outputs, "output_properties", spec.connector, lead=1
    )
    names = [check_key(out.name, "output") for out in outputs]
    if there := [name for name in names if name in columns or name in taken]:
        raise OptionError(
            f"The table has the columns {there} already, and output_properties would add them: drop or "
            "rename them first."
        )
    return RowCaller(spec, chosen, outputs, batch_size)


def _columns(frame: pd.DataFrame) -> list[str]:
    geometry = geometry_column(frame)
    return [name for name in frame.columns if name != geometry]


def _predict_frame(frame: pd.DataFrame, caller: RowCaller) -> pd.DataFrame:
    columns = {name: _values(frame[name], name) for name in caller.columns}
    return _with_columns(frame, caller.call(columns))


def _values(series: Any, name: str) -> npt.NDArray[Any]:
    """A column as an array; strings as Python objects, empty where they are missing."""
    column, values = column_values(series, name)
    if column.kind == "float":
        assert isinstance(values, np.ndarray)
        return values
    if isinstance(series, np.ndarray):
        series = pd.Series(series)
    return np.asarray(series.astype(object).where(series.notna(), ""), STRING)


def _with_columns(frame: pd.DataFrame, columns: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    added: dict[str, Any] = {}
    for name, values in columns.items():
        if values.dtype == STRING and values.ndim == 1:
            added[name] = pd.Series(_texts(values), frame.index, dtype="str")
        elif values.ndim > 1:
            series = pd.Series(index=frame.index, dtype=object)
            series[:] = list(values)
            added[name] = series
        else:
            added[name] = pd.Series(values, frame.index)
    return frame.assign(**added)


def _texts(values: npt.NDArray[Any]) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in values.tolist()]


def _predict_dataset(spec: ModelSpec, table: xr.Dataset, batch_size: int | None) -> xr.Dataset:
    rows = row_dimension(table)
    asked = {*spec.input_properties, *(spec.inputs or ())}
    names = [
        str(name)
        for name in (*table.data_vars, *table.coords)
        # The labels of rows are properties only where the model names them.
        if rows in table[name].dims and (name not in table.indexes or name in asked)
    ]
    taken = [*table.variables, *table.dims]
    caller = row_caller(spec, names, batch_size, taken)
    check_variables(
        {out.name: out.dims for out in caller.outputs},
        taken,
        "Give the output another name in output_properties, or rename what the table has: table.rename(...).",
        "output",
    )
    variables = [_whole(table[name].transpose(rows, ...), rows) for name in caller.columns]

    def call(*arrays: npt.NDArray[Any]) -> Any:
        columns = {name: _values(values, name) for name, values in zip(caller.columns, arrays, strict=True)}
        found = tuple(caller.call(columns).values())
        return found if len(found) > 1 else found[0]

    sizes = {dim: size for out in caller.outputs for dim, size in zip(out.dims, out.shape, strict=True)}
    found = xr.apply_ufunc(
        call,
        *variables,
        input_core_dims=[variable.dims[1:] for variable in variables],
        output_core_dims=[out.dims for out in caller.outputs],
        dask="parallelized",
        output_dtypes=[out.dtype for out in caller.outputs],
        dask_gufunc_kwargs={"output_sizes": sizes},
    )
    arrays = found if isinstance(found, tuple) else (found,)
    return table.assign({out.name: array for out, array in zip(caller.outputs, arrays, strict=True)})


def _whole(variable: xr.DataArray, rows: Hashable) -> xr.DataArray:
    """A variable whose chunks hold whole rows."""
    return variable.chunk({dim: -1 for dim in variable.dims if dim != rows}) if variable.chunks else variable
