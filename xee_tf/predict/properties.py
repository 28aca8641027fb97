"""Predictions for the rows of a table, added as columns."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from xee_tf.chunks import check_chunks
from xee_tf.connector import connected
from xee_tf.display import quoted
from xee_tf.errors import OptionError
from xee_tf.graph import shared_array, shared_value
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
from xee_tf.predict.calling import choose_batch_size, pinned_spec, predict_rows
from xee_tf.tables import (
    Table,
    check_partition,
    column_values,
    geometry_column,
    row_dimension,
    table_type_error,
)

__all__ = ["predict_properties"]

_MODEL = "xee-tf-model"  # name of the tasks that hold a model


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
        # By reference, because every task would hold the model.
        return table.map_partitions(_predict_partition, shared_value(_MODEL, caller), meta=empty)
    raise table_type_error(table)


@dataclass(frozen=True)
class RowCaller:
    """Call a model with the columns that it may take. Small and picklable."""

    spec: ModelSpec
    columns: tuple[str, ...]
    outputs: tuple[Output, ...]
    batch_size: int | None

    def call(self, columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Predict rows.

        Parameters
        ----------
        columns : mapping of str to ndarray
            An array ``(rows, *shape)`` for each of `columns`; strings have dtype object.

        Returns
        -------
        dict of str to ndarray
            An array ``(rows, *shape)`` for each output.
        """
        count = len(next(iter(columns.values())))
        connector = self.spec.connector
        predicted = {out.name: np.empty((count, *out.shape), out.dtype) for out in self.outputs}
        if not count:
            return predicted
        signature = connected(connector).signature
        items = {name: Item(values.dtype, values.shape[1:]) for name, values in columns.items()}
        feeds = plan_feeds(self.spec, signature, items, table=True)
        size = sum(feed.itemsize for feed in feeds)
        batch, fixed = choose_batch_size(connector, signature, self.batch_size, size)
        for rows, found in predict_rows(
            connector, feeds, self.outputs, columns, {}, count, batch, fixed=fixed
        ):
            for name, array in found.items():
                predicted[name][rows] = array
        return predicted


def row_caller(
    spec: ModelSpec, columns: Sequence[str], batch_size: int | None = None, taken: Sequence[Hashable] = ()
) -> RowCaller:
    """Check a model against the columns of a table and return the object that calls it.

    Parameters
    ----------
    spec : ModelSpec
        The model and its options.
    columns : sequence of str
        Columns that the model may take.
    batch_size : int, optional
        Number of rows per call. Default: as many as fit in about 8 MiB.
    taken : sequence of hashable
        Other names that the table uses, for its geometry, dimensions and coordinates.

    Raises
    ------
    OptionError
        If columns are missing or do not fit the model, or neither the options nor the signature of the model
        define its outputs.
    ModelError
        If the model cannot be opened.
    """
    spec = pinned_spec(spec)
    signature = spec.connector.signature()
    inputs = set(signature.inputs or ())
    wanted = {*spec.input_properties, *(spec.inputs or ()), *inputs}
    # If the options or the signature name columns, only those are used.
    named = bool(spec.input_properties or spec.inputs or (inputs and inputs <= set(columns)))
    chosen = tuple(name for name in columns if name in wanted or not named)
    held = f"The table has the columns {listed(columns)}."
    check_required(spec, columns, held, table=True)
    if not chosen:
        raise missing_error(spec, sorted(wanted), held, columns, table=True)
    if repeated := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise OptionError(
            f"The columns {quoted(repeated)} appear more than once in the table. Drop or rename one of each, "
            "for example with table.loc[:, ~table.columns.duplicated()]."
        )
    check_overrides(spec, columns, "table")
    choose_batch_size(spec.connector, signature, batch_size, 1)
    outputs = plan_outputs(
        spec.output_properties, signature.outputs, "output_properties", spec.connector, lead=1
    )
    for out in outputs:
        if out.dtype.kind not in "biufO":
            raise OptionError(
                f"The output {out.name!r} has dtype {out.dtype}; expected a boolean, integer, float or "
                "string dtype. Declare another type in output_properties or change the model."
            )
    names = [check_key(out.name, "output") for out in outputs]
    if existing := [name for name in names if name in columns or name in taken]:
        raise OptionError(
            f"The table already has the columns {quoted(existing)} that output_properties would add. Drop or "
            "rename them first."
        )
    return RowCaller(spec, chosen, outputs, batch_size)


def _columns(frame: pd.DataFrame) -> list[str]:
    geometry = geometry_column(frame)
    return [name for name in frame.columns if name != geometry]


def _predict_partition(frame: Any, caller: RowCaller) -> pd.DataFrame:
    check_partition(frame, caller.columns, "A partition")
    return _predict_frame(frame, caller)


def _predict_frame(frame: pd.DataFrame, caller: RowCaller) -> pd.DataFrame:
    columns = {name: _values(frame[name], name) for name in caller.columns}
    return _with_columns(frame, caller.call(columns))


def _values(series: Any, name: str) -> npt.NDArray[Any]:
    """Return a column as an array; strings as Python objects, empty if missing."""
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
            added[name] = pd.Series(_decode(values), frame.index, dtype="str")
        elif values.ndim > 1:
            series = pd.Series(index=frame.index, dtype=object)
            series[:] = list(values)
            added[name] = series
        else:
            added[name] = pd.Series(values, frame.index)
    return frame.assign(**added)


def _decode(values: npt.NDArray[Any]) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in values.tolist()]


def _predict_dataset(spec: ModelSpec, table: xr.Dataset, batch_size: int | None) -> xr.Dataset:
    rows = row_dimension(table)
    named = {*spec.input_properties, *(spec.inputs or ())}
    names = [
        str(name)
        for name in (*table.data_vars, *table.coords)
        # The index of the rows is a property only if the model names it.
        if rows in table[name].dims and (name not in table.indexes or name in named)
    ]
    taken = [*table.variables, *table.dims]
    caller = row_caller(spec, names, batch_size, taken)
    check_variables(
        {out.name: out.dims for out in caller.outputs},
        taken,
        "Give the output another name in output_properties, or rename the variable of the table: "
        "table.rename(...).",
        "output",
    )
    # Before the chunks of columns are aligned.
    checked = [check_chunks(table[name], f"Column {name!r}", axes=0) for name in caller.columns]
    variables = [_whole_rows(column.transpose(rows, ...), rows) for column in checked]
    is_lazy = any(variable.chunks for variable in variables)
    sizes = {dim: size for out in caller.outputs for dim, size in zip(out.dims, out.shape, strict=True)}
    result = xr.apply_ufunc(
        _predict_chunk,
        xr.Variable((), shared_array(_MODEL, caller)) if is_lazy else caller,
        *variables,
        input_core_dims=[(), *(variable.dims[1:] for variable in variables)],
        output_core_dims=[out.dims for out in caller.outputs],
        dask="parallelized",
        output_dtypes=[out.dtype for out in caller.outputs],
        dask_gufunc_kwargs={"output_sizes": sizes},
    )
    arrays = result if isinstance(result, tuple) else (result,)
    return table.assign({out.name: array for out, array in zip(caller.outputs, arrays, strict=True)})


def _predict_chunk(caller: RowCaller, *arrays: npt.NDArray[Any]) -> Any:
    """Predict chunks of columns."""
    columns = {name: _values(values, name) for name, values in zip(caller.columns, arrays, strict=True)}
    predicted = tuple(caller.call(columns).values())
    return predicted if len(predicted) > 1 else predicted[0]


def _whole_rows(variable: xr.DataArray, rows: Hashable) -> xr.DataArray:
    """Return a variable whose chunks contain whole rows."""
    return variable.chunk({dim: -1 for dim in variable.dims if dim != rows}) if variable.chunks else variable
