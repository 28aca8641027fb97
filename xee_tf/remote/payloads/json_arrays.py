"""Convert between arrays and the JSON of TensorFlow Serving, Vertex AI, AI Platform and MLflow.

Numbers are written with the fewest digits that restore them exactly. Messages may consist of rows or columns,
with or without names.
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

from xee_tf.errors import OptionError, RecordError, excerpt, shorten
from xee_tf.extras import extra
from xee_tf.remote.payloads.strings import as_bytes, decode_base64
from xee_tf.tensors import STRING, tensor_type

__all__ = [
    "UNNAMED",
    "decode_array",
    "decode_json_outputs",
    "encode_elements",
    "encode_rows",
    "json_string",
    "longest_value",
    "min_element_size",
    "parse_columns",
    "parse_object",
    "parse_rows",
]

UNNAMED = ""
"""Key of the values of rows without names."""

_LONGEST_NUMBER = 64  # characters of a number that is sent as a string
_MOST_AXES = 64  # of numpy
# With all digits, close to the ends of the ranges in which numbers are written without an exponent.
_LONGEST_FLOATS = {
    "float32": (-0.0000118522985, -8710643500000.0, -1.03827455e-20),
    "float64": (-0.000012345678901234568, -1234567890123456.8, -3.7265945141074237e-300),
}
_LARGE = 1 << 16  # the garbage collector is paused while at least this many bytes of JSON are parsed
_PAUSE = Lock()


def _orjson() -> Any:
    with extra("hosted", "JSON of a model server"):
        import orjson
    return orjson


# -- Writing ---------------------------------------------------------------------------------------


def encode_elements(batch: npt.NDArray[Any], *, quoted: bool = False, in_base64: bool = False) -> list[bytes]:
    """Encode each element of the first dimension as JSON: a value, or nested lists in C order.

    Floats always have a decimal point or an exponent; NaN and infinities are written as ``NaN`` and
    ``-Infinity``, as in Python and TensorFlow Serving. Strings that are not UTF-8 are encoded as
    ``{"b64": ...}``.

    Parameters
    ----------
    batch : ndarray, shape (n, ...)
        Real numbers, booleans or strings.
    quoted : bool, default False
        Whether numbers are written as strings (``"12.5"``), as in Earth Engine's RAW_JSON.
    in_base64 : bool, default False
        Whether all strings are encoded as ``{"b64": ...}``.

    Examples
    --------
    >>> encode_elements(np.array([[0.1, 2], [np.nan, 1e-9]], "float32"))
    [b'[0.1,2.0]', b'[NaN,1e-9]']
    >>> encode_elements(np.array([3, 4]), quoted=True)
    [b'"3"', b'"4"']
    """
    if _kind(batch.dtype) == "string":
        return _encode_strings(batch, in_base64)
    if not batch.size:
        return list(map(_orjson().dumps, batch.tolist()))
    values = np.ascontiguousarray(batch, batch.dtype.newbyteorder("="))
    if values.dtype.itemsize == 2 and values.dtype.kind not in "iu":  # float16, bfloat16
        values = values.astype(np.float32)
    text = _encode_numbers(values)
    if quoted and values.dtype.kind != "b":
        text = _quote_numbers(text, values.ndim)
    # All instances are encoded in one call, because those of tables are many and small.
    depth = values.ndim - 1
    opening, closing = b"[" * depth, b"]" * depth
    inner = text[1 + depth : len(text) - depth - 1]
    return [opening + piece + closing for piece in inner.split(closing + b"," + opening)]


def encode_rows(columns: Mapping[str, Sequence[bytes]]) -> list[bytes]:
    """Encode each row as a JSON object, given columns of JSON values by name.

    Examples
    --------
    >>> encode_rows({"B4": [b"1", b"2"], "B5": [b"[3]", b"[4]"]})
    [b'{"B4":1,"B5":[3]}', b'{"B4":2,"B5":[4]}']
    """
    keys = [json_string(name).replace(b"%", b"%%") for name in columns]
    template = b"{" + b",".join(key + b":%s" for key in keys) + b"}"
    return [template % row for row in zip(*columns.values(), strict=True)]


def json_string(value: str) -> bytes:
    """Encode a string as JSON, in ASCII."""
    return json.dumps(value).encode()


def min_element_size(dtype: npt.DTypeLike, shape: tuple[int, ...], *, quoted: bool = False) -> int:
    """Return the minimum number of characters of an array as JSON; see `encode_elements`.

    Examples
    --------
    >>> min_element_size("uint8", (2, 2))  # [[0,0],[0,0]]
    13
    """
    kind = _kind(np.dtype(dtype))
    shortest = {"bool": 4, "string": 2, "float": 3, "int": 1}[kind]
    if quoted and kind in ("float", "int"):
        shortest += 2
    lists, punctuation = 1, 0
    for length in shape:
        punctuation += lists * (2 + max(0, length - 1))  # brackets and commas
        lists *= length
    return punctuation + lists * shortest


def longest_value(dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a number of a dtype that takes as many characters as any other; of strings, an empty one.

    Floats of 16 bits are written as, and returned in, float32.

    Examples
    --------
    >>> longest_value("int16"), encode_elements(longest_value("float32")[None])
    (array(-32768, dtype=int16), [b'-0.0000118522985'])
    """
    kind, dtype = _kind(np.dtype(dtype)), np.dtype(dtype)
    if kind in ("bool", "string"):
        return np.zeros((), dtype)
    if kind == "int":
        limits = np.iinfo(dtype)
        return np.array(max(limits.min, limits.max, key=lambda value: len(str(value))), dtype)
    name = "float64" if dtype.itemsize == 8 else "float32"
    candidates = np.array(_LONGEST_FLOATS[name], name)
    return np.array(max(candidates, key=lambda value: len(encode_elements(value[None])[0])))


def _kind(dtype: np.dtype[Any]) -> str:
    """Return the JSON type of values: "string", "bool", "int" or "float"."""
    if tensor_type(dtype) is STRING:
        return "string"
    if dtype.kind == "c":
        raise OptionError("JSON does not support complex numbers: send the real and imaginary parts.")
    return "bool" if dtype.kind == "b" else "int" if dtype.kind in "iu" else "float"


def _encode_numbers(values: npt.NDArray[Any]) -> bytes:
    """Encode numbers as nested lists."""
    orjson = _orjson()
    text: bytes = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return text
    # orjson writes null for values that are not finite.
    special = values[~np.isfinite(values)]
    names = np.where(np.isnan(special), b"NaN", np.where(special > 0, b"Infinity", b"-Infinity")).tolist()
    return b"".join(chain.from_iterable(zip(text.split(b"null"), [*names, b""], strict=True)))


def _quote_numbers(text: bytes, depth: int) -> bytes:
    """Put each number of nested lists in quotes.

    Examples
    --------
    >>> _quote_numbers(b"[[1,2],[3,4]]", 2)
    b'[["1","2"],["3","4"]]'
    """
    text = text.replace(b",", b'","')
    for level in range(depth - 1, 0, -1):  # move the quotes inside the brackets
        closing, opening = b"]" * level, b"[" * level
        text = text.replace(closing + b'","' + opening, b'"' + closing + b"," + opening + b'"')
    return b"[" * depth + b'"' + text[depth : len(text) - depth] + b'"' + b"]" * depth


def _encode_strings(batch: npt.NDArray[Any], in_base64: bool) -> list[bytes]:
    values = np.empty(batch.size, object)
    values[:] = [_string_value(string, in_base64) for string in batch.reshape(-1).tolist()]
    rows = values.reshape(batch.shape).tolist()
    return [json.dumps(row, separators=(",", ":")).encode() for row in rows]


def _string_value(value: object, in_base64: bool) -> str | dict[str, str]:
    if not isinstance(value, str | bytes):
        raise OptionError(f"An array of strings contains {value!r}; expected only str or bytes.")
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
    """Decode the outputs of a response in any of its forms; see `Payload.decode`.

    The response contains ``predictions``, a list with values of a single output or objects of several; or
    ``outputs`` by columns, which MLflow also calls ``predictions``. Strings may be ``{"b64": ...}``. Numbers
    may be strings if their dtype is known, as in Earth Engine's RAW_JSON.

    Examples
    --------
    >>> decode_json_outputs(b'{"predictions": [{"p": 0.5, "class": "oak"}, {"p": 1, "class": "elm"}]}')
    {'p': array([0.5, 1. ]), 'class': array([b'oak', b'elm'], dtype=object)}
    """
    message = parse_object(data, "response")
    predictions = message.get("predictions")
    if predictions and not _is_value(predictions):
        columns = predictions  # columns, as in MLflow
    elif "predictions" in message:
        columns = parse_rows(predictions, "predictions")
    elif "outputs" in message:
        columns = parse_columns(message["outputs"])
    else:
        content = message.get("error", list(message))
        shown = shorten(content, 200) if isinstance(content, str) else excerpt(content, 200)
        raise RecordError(f"The response contains neither 'predictions' nor 'outputs': {shown}")
    dtypes = dtypes or {}
    named = {key or name: value for key, value in columns.items()}
    return {key: decode_array(value, key, dtypes.get(key)) for key, value in named.items()}


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object, which may contain NaN and infinities; `what` describes it in error messages."""
    try:
        message = _parse(data)
    except (ValueError, RecursionError):
        raise RecordError(f"The {what} is not valid JSON: {excerpt(data, 200)}") from None
    if not isinstance(message, dict):
        raise RecordError(f"The {what} must be a JSON object; got {excerpt(message, 200)}")
    return message


def parse_columns(columns: Any) -> dict[str, Any]:
    """Return columns by name; a column without a name has the key `UNNAMED`."""
    return {UNNAMED: columns} if _is_value(columns) else columns


def parse_rows(rows: object, what: str) -> dict[str, list[Any]]:
    """Convert rows to columns by name; the column of rows without names has the key `UNNAMED`.

    Raises
    ------
    RecordError
        If `rows` is not a list or is empty, or if the rows have different names; `what` is the name of the
        list in the message.
    """
    if not isinstance(rows, list) or not rows:
        raise RecordError(f"{what!r} must be a list that is not empty; got {excerpt(rows, 200)}")
    if all(map(_is_value, rows)):
        return {UNNAMED: rows}
    names = list(rows[0]) if isinstance(rows[0], dict) else []
    for index, row in enumerate(rows):
        if _is_value(row) or set(row) != set(names):
            raise RecordError(
                f"The names of element {index} of {what!r} differ from those of element 0: "
                f"{excerpt(row, 200)}"
            )
    return {name: [row[name] for row in rows] for name in names}


def decode_array(value: Any, name: str, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    """Convert nested lists of numbers, booleans or strings to an array; without `dtype`, it is inferred.

    Raises
    ------
    RecordError
        If lists have unequal lengths, or values cannot be represented in the dtype.
    """
    values, shape = _flatten(value, name)
    kind = None if dtype is None else np.dtype(dtype)
    types = set(map(type, values))
    if types & {str, dict} and (kind is None or kind.kind == "O"):
        return _decode_strings(values).reshape(shape)
    if kind is not None and kind.kind == "O":
        raise RecordError(
            f"{name!r} contains {excerpt(values[0] if values else value, 200)}; expected strings."
        )
    if dict in types:
        values, types = [string.decode(errors="replace") for string in _decode_strings(values)], {str}
    if not types <= {bool, int, float, str}:
        raise RecordError(f"{name!r} contains values that are not numbers: {excerpt(value, 200)}")
    if str in types:
        strings = [each for each in values if isinstance(each, str)]
        if kind is not None and kind.kind == "b":
            raise RecordError(f"{name!r} contains the string {shorten(strings[0], 200)}; expected {kind}.")
        # numpy stores strings with the width of the longest one.
        longest = max(strings, key=len)
        if len(longest) > _LONGEST_NUMBER:
            raise RecordError(f"{name!r} contains the string {shorten(longest, 200)}; expected a number.")
    return _decode_numbers(values, types, name, kind).reshape(shape)


def _flatten(value: Any, name: str) -> tuple[list[Any], list[int]]:
    """Return the values in nested lists, and the lengths of the lists of each level."""
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        if set(map(type, level)) != {list} or len(set(map(len, level))) > 1:
            raise RecordError(f"{name!r} contains lists of unequal lengths, or lists beside values.")
        shape.append(len(level[0]))
        level = list(chain.from_iterable(level))
    if len(shape) > _MOST_AXES:
        raise RecordError(f"{name!r} contains {len(shape)} levels of lists; numpy supports {_MOST_AXES}.")
    return level, shape


def _parse(data: bytes) -> Any:
    orjson = _orjson()
    with _collector_paused() if len(data) >= _LARGE else nullcontext():
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            return json.loads(data)  # supports NaN and infinities, unlike orjson


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector, in one thread at a time.

    The lists of a tile trigger it hundreds of times, and each time it may traverse all objects of TensorFlow,
    which dominates the time of parsing. The lock costs nothing, because parsing holds the GIL anyway. With a
    counter of pauses instead, threads that take turns could keep the collector off permanently.
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
    """Return whether `value` is a value or a list of values, as opposed to an object with names."""
    return not isinstance(value, dict) or set(value) == {"b64"}


def _decode_numbers(
    values: list[Any], types: set[type], name: str, dtype: np.dtype[Any] | None
) -> npt.NDArray[Any]:
    try:
        array = np.fromiter(values, np.float64, len(values)) if types == {float} else np.asarray(values)
        if array.dtype.kind == "U":
            array = array.astype(dtype if dtype is not None and dtype.kind in "iu" else np.float64)
    except (ValueError, OverflowError) as error:
        raise RecordError(f"{name!r} contains values that are not numbers: {error}") from None
    if array.dtype.kind not in "biuf":  # integers beyond 64 bits
        raise RecordError(f"{name!r} contains numbers that are too large: {excerpt(values, 200)}")
    if dtype is None:
        return array
    if (dtype.kind == "b") != (array.dtype.kind == "b"):
        raise RecordError(f"{name!r} contains {array.dtype} values; expected {dtype}.")
    if dtype.kind not in "iu":
        with np.errstate(over="ignore", invalid="ignore"):
            return array.astype(dtype)
    # numpy reads integers with a decimal point, and very large ones, as floats.
    if array.dtype.kind == "f":
        array = np.asarray(values, object)
    try:
        with np.errstate(invalid="ignore"):
            cast = array.astype(dtype)
        if not np.array_equal(cast, array):
            raise ValueError
    except (ValueError, OverflowError):
        raise RecordError(f"{name!r} contains numbers that cannot be represented as {dtype}.") from None
    return cast


def _decode_strings(values: list[Any]) -> npt.NDArray[Any]:
    """Convert text and ``{"b64": ...}`` to an array of bytes."""
    strings = np.empty(len(values), object)
    for index, item in enumerate(values):
        if isinstance(item, dict) and set(item) == {"b64"}:
            strings[index] = decode_base64(as_bytes(item["b64"]))
        else:
            strings[index] = as_bytes(item)
    return strings
