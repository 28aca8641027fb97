"""TensorFlow Serving's JSON: requests and responses, by rows and by columns, to and from arrays.

Vertex AI and AI Platform speak its row form.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError, shorten
from xee_tf.remote.payloads.arrays import Arrays
from xee_tf.remote.payloads.json_text import json_texts
from xee_tf.remote.payloads.strings import as_bytes, decode_base64

__all__ = [
    "JsonRequest",
    "decode_json_request",
    "decode_json_response",
    "encode_json_response",
    "join_rows",
    "json_rows",
]

Dtypes = Mapping[str, npt.DTypeLike]

UNNAMED = ""
"""The name of what a row holds that has no names."""

_LARGE = 1 << 16
"""Bytes of JSON from which on the garbage collector is kept out."""

_PAUSE = Lock()


@dataclass(frozen=True)
class JsonRequest:
    """What a client asks.

    Parameters
    ----------
    inputs : mapping from str to ndarray
        By name; strings as objects (bytes).
    signature_name : str
        Empty: the default one.
    by_columns : bool
        Whether it said ``inputs``, and so wants ``outputs``, rather than ``instances``.
    """

    inputs: Arrays
    signature_name: str
    by_columns: bool


def json_rows(texts: Mapping[str, Sequence[bytes]]) -> list[bytes]:
    """Objects of one row each, from the JSON texts of their values.

    Examples
    --------
    >>> json_rows({"B4": [b"1", b"2"], "B5": [b"[3]", b"[4]"]})
    [b'{"B4":1,"B5":[3]}', b'{"B4":2,"B5":[4]}']
    """
    marks = (b"{", *(b"," for _ in range(len(texts) - 1)))
    keys = [mark + json.dumps(name).encode() + b":" for mark, name in zip(marks, texts, strict=True)]
    return [
        b"".join([piece for pair in zip(keys, row, strict=True) for piece in pair] + [b"}"])
        for row in zip(*texts.values(), strict=True)
    ]


def join_rows(rows: Sequence[bytes], signature_name: str = "") -> bytes:
    """The request that holds some rows.

    Examples
    --------
    >>> join_rows([b"1", b"2"])
    b'{"instances":[1,2]}'
    """
    signature = b'"signature_name":%s,' % json.dumps(signature_name).encode() if signature_name else b""
    return b'{%s"instances":[%s]}' % (signature, b",".join(rows))


def decode_json_request(data: bytes, dtypes: Dtypes) -> JsonRequest:
    """A request by rows (``instances``) or columns (``inputs``).

    Parameters
    ----------
    data : bytes
        JSON; NaN and the infinities as Python writes them.
    dtypes : mapping from str to dtype
        The inputs of the signature; object for strings.

    Raises
    ------
    RecordError
        If it is not JSON, holds both forms or none, other names than `dtypes`, values of another kind, or
        rows of unequal shapes.

    Examples
    --------
    >>> decode_json_request(b'{"instances": [[1, 2], [3, 4]]}', {"x": "float32"}).inputs
    {'x': array([[1., 2.], [3., 4.]], dtype=float32)}
    """
    message = _object(data, "request")
    if ("instances" in message) == ("inputs" in message):
        raise RecordError("A request holds either 'instances' (rows) or 'inputs' (columns).")
    signature_name = message.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise RecordError(f"'signature_name' must be a string; got {signature_name!r}.")
    if "inputs" in message:
        columns = message["inputs"]
        if _is_value(columns):
            columns = {UNNAMED: columns}
    else:
        columns = _columns(message["instances"], "instances")
    return JsonRequest(_named(columns, dtypes), signature_name, "inputs" in message)


def encode_json_response(outputs: Arrays, *, by_columns: bool = False) -> bytes:
    """A response, as TensorFlow Serving writes it.

    Rows of one output are bare. Strings are ``{"b64": ...}`` if the name of their output ends with
    ``_bytes``, else text.

    Examples
    --------
    >>> encode_json_response({"p": np.array([0.5, 1])})
    b'{"predictions":[0.5,1.0]}'
    """
    batches = {name: array if by_columns is False else array[None] for name, array in outputs.items()}
    texts = {name: json_texts(batch, in_base64=name.endswith("_bytes")) for name, batch in batches.items()}
    bare = len(texts) == 1
    rows = next(iter(texts.values())) if bare else json_rows(texts)
    if by_columns:
        return b'{"outputs":%s}' % rows[0]
    return b'{"predictions":[%s]}' % b",".join(rows)


def decode_json_response(
    data: bytes, *, name: str = "output", dtypes: Dtypes | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The outputs of a response, whichever form it has.

    Parameters
    ----------
    data : bytes
        JSON with ``predictions``: values of the only output, or objects of several; or ``outputs``, by
        columns, which MLflow calls ``predictions``, too. Strings may be ``{"b64": ...}``.
    name : str, optional
        What the only output is called where the response does not say.
    dtypes : mapping from str to dtype, optional
        Of outputs; numbers may then be strings, as Earth Engine's RAW_JSON has them. Default: as they look.

    Raises
    ------
    RecordError
        If it is not such a response.

    Examples
    --------
    >>> decode_json_response(b'{"predictions": [{"p": 0.5, "class": "oak"}, {"p": 1, "class": "elm"}]}')
    {'p': array([0.5, 1. ]), 'class': array([b'oak', b'elm'], dtype=object)}
    """
    message = _object(data, "response")
    predictions = message.get("predictions")
    if predictions and not _is_value(predictions):
        columns = predictions  # by columns, as MLflow has it
    elif "predictions" in message:
        columns = _columns(message["predictions"], "predictions")
    elif "outputs" in message:
        columns = message["outputs"]
        columns = {UNNAMED: columns} if _is_value(columns) else columns
    else:
        said = message.get("error", sorted(message))
        raise RecordError(
            f"The response holds neither 'predictions' nor 'outputs': {shorten(str(said), 200)}"
        )
    known = dtypes or {}
    found = {key or name: value for key, value in columns.items()}
    return {key: _array(value, key, known.get(key)) for key, value in found.items()}


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        if len(data) < _LARGE:
            message = json.loads(data)
        else:
            with _collector_paused():
                message = json.loads(data)
    except (ValueError, RecursionError):
        raise RecordError(f"The {what} is not JSON: {shorten(str(data), 200)}") from None
    if not isinstance(message, dict):
        raise RecordError(f"The {what} must be a JSON object; got {shorten(str(message), 200)}")
    return message


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Without the garbage collector, for one thread at a time.

    The lists of a tile set it off hundreds of times for nothing, and each time it may look through all of
    TensorFlow: most of the time of parsing (our measurement). Parsing keeps other threads waiting anyway, so
    that a lock costs nothing; were pauses counted, threads that take turns could keep it out for good.
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


def _columns(rows: object, what: str) -> dict[str, list[Any]]:
    """Rows by name; those without names under `UNNAMED`."""
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


def _named(columns: Mapping[str, Any], dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the inputs of a signature."""
    if set(columns) == {UNNAMED} and len(dtypes) == 1:
        columns = {next(iter(dtypes)): columns[UNNAMED]}
    if set(columns) != set(dtypes):
        got = "no names" if set(columns) == {UNNAMED} else sorted(columns)
        raise RecordError(f"The model has the inputs {sorted(dtypes)}; the request has {got}.")
    return {name: _array(columns[name], name, dtype) for name, dtype in dtypes.items()}


def _array(value: Any, name: str, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    """The array of nested lists, of numbers, booleans or strings."""
    first, depth = value, 0
    while isinstance(first, list) and first:
        first, depth = first[0], depth + 1
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
