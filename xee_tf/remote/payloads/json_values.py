"""Arrays from TensorFlow Serving's JSON: messages by rows and by columns, with and without names.

Vertex AI and AI Platform use its row form.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from xee_tf.errors import RecordError, shorten
from xee_tf.remote.payloads.strings import as_bytes, decode_base64

__all__ = ["UNNAMED", "array_of", "columns_of", "columns_of_rows", "decode_json_outputs", "parse_object"]

UNNAMED = ""
"""The name of what a row holds that has no names."""

_LARGE = 1 << 16
"""Bytes of JSON from which on the garbage collector is paused."""

_PAUSE = Lock()


def decode_json_outputs(
    data: bytes, name: str = "output", dtypes: Mapping[str, npt.DTypeLike] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The outputs of a response, whichever form it has.

    Parameters
    ----------
    data : bytes
        JSON with ``predictions``: values of the only output, or objects of several; or ``outputs``, by
        columns, which MLflow calls ``predictions``, too. Strings may be ``{"b64": ...}``.
    name : str, optional
        What the only output is called if the response does not name it.
    dtypes : mapping from str to dtype, optional
        Of outputs; numbers may then be strings, as Earth Engine's RAW_JSON has them. Default: as they look.

    Raises
    ------
    RecordError
        If it is not such a response.

    Examples
    --------
    >>> decode_json_outputs(b'{"predictions": [{"p": 0.5, "class": "oak"}, {"p": 1, "class": "elm"}]}')
    {'p': array([0.5, 1. ]), 'class': array([b'oak', b'elm'], dtype=object)}
    """
    message = parse_object(data, "response")
    predictions = message.get("predictions")
    if predictions and not _is_value(predictions):
        columns = predictions  # by columns, as MLflow has it
    elif "predictions" in message:
        columns = columns_of_rows(predictions, "predictions")
    elif "outputs" in message:
        columns = columns_of(message["outputs"])
    else:
        said = message.get("error", sorted(message))
        raise RecordError(
            f"The response holds neither 'predictions' nor 'outputs': {shorten(str(said), 200)}"
        )
    known = dtypes or {}
    found = {key or name: value for key, value in columns.items()}
    return {key: array_of(value, key, known.get(key)) for key, value in found.items()}


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object.

    Parameters
    ----------
    data : bytes
        NaN and the infinities may be written as Python does.
    what : str
        For errors.

    Raises
    ------
    RecordError
        If it is not a JSON object.
    """
    try:
        message = _parse(data)
    except (ValueError, RecursionError):
        raise RecordError(f"The {what} is not JSON: {shorten(str(data), 200)}") from None
    if not isinstance(message, dict):
        raise RecordError(f"The {what} must be a JSON object; got {shorten(str(message), 200)}")
    return message


def columns_of(columns: Any) -> dict[str, Any]:
    """Values by name; those without names under `UNNAMED`."""
    return {UNNAMED: columns} if _is_value(columns) else columns


def columns_of_rows(rows: object, what: str) -> dict[str, list[Any]]:
    """Rows by name; those without names under `UNNAMED`.

    Raises
    ------
    RecordError
        If they are not a list of at least one, or have different names; `what` is the list's name.
    """
    if not isinstance(rows, list) or not rows:
        raise RecordError(f"{what!r} must be a list of at least one; got {shorten(str(rows), 200)}")
    if all(map(_is_value, rows)):
        return {UNNAMED: rows}
    names = list(rows[0]) if isinstance(rows[0], dict) else []
    for place, row in enumerate(rows):
        if _is_value(row) or set(row) != set(names):
            raise RecordError(
                f"Element {place} of {what!r} has other names than element 0: {shorten(str(row), 200)}"
            )
    return {name: [row[name] for row in rows] for name in names}


def array_of(value: Any, name: str, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    """The array of nested lists of numbers, booleans or strings.

    Parameters
    ----------
    value : object
        As JSON gives it.
    name : str
        For errors.
    dtype : dtype or None
        Of the array; object for strings. None: as the values look.

    Raises
    ------
    RecordError
        If lists have unequal lengths, or values are of another kind.
    """
    first = value
    while isinstance(first, list) and first:
        first = first[0]
    kind = None if dtype is None else np.dtype(dtype)
    if isinstance(first, str | dict):
        strings = _strings(value, name)
        if kind is None or kind.kind == "O":
            return strings
        if kind.kind == "b":
            raise RecordError(f"{name!r} holds the string {shorten(str(first), 200)}; expected {kind}.")
        texts = [string.decode(errors="replace") for string in strings.reshape(-1).tolist()]
        value = np.array(texts).reshape(strings.shape)
    elif kind is not None and kind.kind == "O":
        raise RecordError(f"{name!r} holds {shorten(str(first), 200)}; expected strings.")
    return _numbers(value, name, kind)


def _parse(data: bytes) -> Any:
    with _collector_paused(len(data) >= _LARGE):
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            return json.loads(data)  # it reads NaN and the infinities, which orjson does not


@contextmanager
def _collector_paused(is_paused: bool) -> Iterator[None]:
    """Without the garbage collector, for one thread at a time.

    The lists of a tile trigger it hundreds of times for nothing, and each time it may traverse all of
    TensorFlow: most of the time of parsing, when it was measured. Parsing keeps other threads waiting anyway,
    so that a lock costs nothing; if pauses were counted, threads that take turns could keep it off for good.
    """
    if not is_paused:
        yield
        return
    with _PAUSE:
        enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if enabled:
                gc.enable()


def _is_value(value: object) -> bool:
    """Whether it is a value or list of values, rather than an object of several by name."""
    return not isinstance(value, dict) or set(value) == {"b64"}


def _numbers(value: Any, name: str, dtype: np.dtype[Any] | None) -> npt.NDArray[Any]:
    try:
        array = np.asarray(value)
        if array.dtype.kind in "US":
            array = array.astype(dtype if dtype is not None and dtype.kind in "iu" else np.float64)
    except (ValueError, OverflowError) as error:
        raise RecordError(f"{name!r} holds lists of unequal lengths, or what is no number: {error}") from None
    if array.dtype.kind not in "biuf":
        raise RecordError(f"{name!r} holds values that are no numbers: {shorten(str(value), 200)}")
    if dtype is None:
        return array
    if (dtype.kind == "b") != (array.dtype.kind == "b"):
        raise RecordError(f"{name!r} holds {array.dtype} values; expected {dtype}.")
    if dtype.kind not in "iu":
        with np.errstate(over="ignore", invalid="ignore"):
            return array.astype(dtype)
    if array.dtype.kind == "f":  # whole numbers with a point; or numpy's reading of very large ones
        array = np.asarray(value, object)
    try:
        with np.errstate(invalid="ignore"):
            cast = array.astype(dtype)
        if not np.array_equal(cast, array):
            raise ValueError
    except (ValueError, OverflowError):
        raise RecordError(f"{name!r} holds numbers that {dtype} cannot.") from None
    return cast


def _strings(value: Any, name: str) -> npt.NDArray[Any]:
    """An array of byte strings, from nested lists of text and ``{"b64": ...}``."""
    shape: list[int] = []
    level = [value]
    while any(isinstance(item, list) for item in level):
        if not all(isinstance(item, list) and len(item) == len(level[0]) for item in level):
            raise RecordError(f"{name!r} holds lists of unequal lengths.")
        shape.append(len(level[0]))
        level = [item for items in level for item in items]
    strings = np.empty(len(level), object)
    for place, item in enumerate(level):
        if isinstance(item, dict) and set(item) == {"b64"}:
            strings[place] = decode_base64(as_bytes(item["b64"]))
        else:
            strings[place] = as_bytes(item)
    return strings.reshape(shape)
