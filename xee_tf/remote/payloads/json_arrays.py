"""Arrays as JSON and back, as TensorFlow Serving, Vertex AI, AI Platform and MLflow have it.

Numbers are written in as few digits as restore them. Messages are read by rows and by columns, with and
without names.
"""

from __future__ import annotations

import base64
import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import OptionError, RecordError, shorten
from xee_tf.extras import extra
from xee_tf.remote.payloads.strings import as_bytes, decode_base64
from xee_tf.tensors import STRING, tensor_type

__all__ = [
    "UNNAMED",
    "array_of",
    "columns_of",
    "columns_of_rows",
    "decode_json_outputs",
    "json_rows",
    "json_string",
    "json_texts",
    "least_text_size",
    "parse_object",
]

UNNAMED = ""
"""The name of what a row holds that has no names."""

_LARGE = 1 << 16  # bytes of JSON from which on the garbage collector is paused
_PAUSE = Lock()


def _orjson() -> Any:
    with extra("hosted", "JSON of a model server"):
        import orjson
    return orjson


# -- Writing ---------------------------------------------------------------------------------------


def json_texts(batch: npt.NDArray[Any], *, quoted: bool = False, in_base64: bool = False) -> list[bytes]:
    """The JSON text of each element of the first dimension: a value, or nested lists in C order.

    Floats always have a point or an exponent; NaN and the infinities are written as Python and TensorFlow
    Serving do (``NaN``, ``-Infinity``). Strings that are not UTF-8 become ``{"b64": ...}``.

    Parameters
    ----------
    batch : ndarray, shape (n, ...)
        Real numbers, booleans or strings.
    quoted : bool, optional
        Whether numbers become strings (``"12.5"``), as Earth Engine's RAW_JSON has them.
    in_base64 : bool, optional
        Whether all strings become ``{"b64": ...}``.

    Examples
    --------
    >>> json_texts(np.array([[0.1, 2], [np.nan, 1e-9]], "float32"))
    [b'[0.1,2.0]', b'[NaN,1e-9]']
    >>> json_texts(np.array([3, 4]), quoted=True)
    [b'"3"', b'"4"']
    """
    if _kind(batch.dtype) == "string":
        return _string_texts(batch, in_base64)
    if not batch.size:
        return list(map(_orjson().dumps, batch.tolist()))
    values = np.ascontiguousarray(batch, batch.dtype.newbyteorder("="))
    if values.dtype.itemsize == 2 and values.dtype.kind not in "iu":  # float16, bfloat16
        values = values.astype(np.float32)
    text = _number_text(values)
    if quoted and values.dtype.kind != "b":
        text = _quoted(text, values.ndim)
    # One call for all instances, as those of tables are many and small.
    depth = values.ndim - 1
    opening, closing = b"[" * depth, b"]" * depth
    inner = text[1 + depth : len(text) - depth - 1]
    return [opening + piece + closing for piece in inner.split(closing + b"," + opening)]


def json_rows(texts: Mapping[str, Sequence[bytes]]) -> list[bytes]:
    """The JSON object of each row, from the JSON texts of its values by name.

    Examples
    --------
    >>> json_rows({"B4": [b"1", b"2"], "B5": [b"[3]", b"[4]"]})
    [b'{"B4":1,"B5":[3]}', b'{"B4":2,"B5":[4]}']
    """
    keys = [json_string(name).replace(b"%", b"%%") for name in texts]
    template = b"{" + b",".join(key + b":%s" for key in keys) + b"}"
    return [template % row for row in zip(*texts.values(), strict=True)]


def json_string(value: str) -> bytes:
    """A string as JSON, in ASCII."""
    return json.dumps(value).encode()


def least_text_size(dtype: npt.DTypeLike, shape: tuple[int, ...], *, quoted: bool = False) -> int:
    """Characters that the JSON text of an array takes at least; see `json_texts`.

    Examples
    --------
    >>> least_text_size("uint8", (2, 2))  # [[0,0],[0,0]]
    13
    """
    kind = _kind(np.dtype(dtype))
    shortest = {"bool": 4, "string": 2, "float": 3, "int": 1}[kind]
    if quoted and kind in ("float", "int"):
        shortest += 2
    lists, marks = 1, 0
    for length in shape:
        marks += lists * (2 + max(0, length - 1))  # brackets and commas
        lists *= length
    return marks + lists * shortest


def _kind(dtype: np.dtype[Any]) -> str:
    """What values become in JSON."""
    if tensor_type(dtype) is STRING:
        return "string"
    if dtype.kind == "c":
        raise OptionError("JSON has no complex numbers: send the real and the imaginary part.")
    return "bool" if dtype.kind == "b" else "int" if dtype.kind in "iu" else "float"


def _number_text(values: npt.NDArray[Any]) -> bytes:
    """Numbers as nested lists."""
    orjson = _orjson()
    text: bytes = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return text
    # orjson writes what is not finite as null.
    special = values[~np.isfinite(values)]
    names = np.where(np.isnan(special), b"NaN", np.where(special > 0, b"Infinity", b"-Infinity")).tolist()
    return b"".join(chain.from_iterable(zip(text.split(b"null"), [*names, b""], strict=True)))


def _quoted(text: bytes, depth: int) -> bytes:
    """Nested lists of numbers, each number in quotes.

    Examples
    --------
    >>> _quoted(b"[[1,2],[3,4]]", 2)
    b'[["1","2"],["3","4"]]'
    """
    text = text.replace(b",", b'","')
    for level in range(depth - 1, 0, -1):  # the quotes belong inside the brackets
        closing, opening = b"]" * level, b"[" * level
        text = text.replace(closing + b'","' + opening, b'"' + closing + b"," + opening + b'"')
    return b"[" * depth + b'"' + text[depth : len(text) - depth] + b'"' + b"]" * depth


def _string_texts(batch: npt.NDArray[Any], in_base64: bool) -> list[bytes]:
    values = np.empty(batch.size, object)
    values[:] = [_string_value(string, in_base64) for string in batch.reshape(-1).tolist()]
    rows = values.reshape(batch.shape).tolist()
    return [json.dumps(row, separators=(",", ":")).encode() for row in rows]


def _string_value(value: object, in_base64: bool) -> str | dict[str, str]:
    if not isinstance(value, str | bytes):
        raise OptionError(f"An array of strings holds {value!r}; expected str or bytes only.")
    if not in_base64:
        try:
            return value if isinstance(value, str) else value.decode()
        except UnicodeDecodeError:
            pass
    data = value.encode() if isinstance(value, str) else value
    return {"b64": base64.b64encode(data).decode()}


# -- Reading ---------------------------------------------------------------------------------------


def decode_json_outputs(
    data: bytes, name: str = "output", dtypes: Mapping[str, npt.DTypeLike] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The outputs of a response, whichever form it has; see `Payload.decode`.

    It has ``predictions``: values of the only output, or objects of several; or ``outputs``, by columns,
    which MLflow calls ``predictions``, too. Strings may be ``{"b64": ...}``. Where their dtype is known,
    numbers may be strings, as Earth Engine's RAW_JSON has them.

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
    """A JSON object, or a RecordError that calls it `what`; NaN and infinities may be as in Python."""
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
    """The array of nested lists of numbers, booleans or strings; of no `dtype`, as the values look.

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
    orjson = _orjson()
    with _collector_paused() if len(data) >= _LARGE else nullcontext():
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            return json.loads(data)  # it reads NaN and the infinities, which orjson does not


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Without the garbage collector, for one thread at a time.

    The lists of a tile trigger it hundreds of times for nothing, and each time it may traverse all of
    TensorFlow: most of the time of parsing, when it was measured. Parsing keeps other threads waiting anyway,
    so that a lock costs nothing; if pauses were counted, threads that take turns could keep it off for good.
    """
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
