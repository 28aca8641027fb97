"""Arrays as JSON text, in as few digits as restore every number."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from xee_tf.errors import OptionError
from xee_tf.records.tensor_types import STRING, tensor_type

__all__ = ["json_rows", "json_string", "json_texts", "least_text_size"]


def json_texts(batch: npt.NDArray[Any], *, quoted: bool = False, in_base64: bool = False) -> list[bytes]:
    """The JSON text of each element of the first dimension.

    Parameters
    ----------
    batch : ndarray, shape (n, ...)
        Real numbers, booleans or strings. Floats always have a point or an exponent; NaN and the
        infinities are written as Python and TensorFlow Serving do (``NaN``, ``-Infinity``). Strings that are
        not UTF-8 become ``{"b64": ...}``.
    quoted : bool, optional
        Whether numbers become strings (``"12.5"``), as Earth Engine's RAW_JSON has them.
    in_base64 : bool, optional
        Whether all strings become ``{"b64": ...}``.

    Returns
    -------
    list of bytes
        Values, or nested lists in C order.

    Raises
    ------
    OptionError
        If JSON has no such values.

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
        return [json.dumps(row, separators=(",", ":")).encode() for row in batch.tolist()]
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
    """Objects of one row each, from the JSON texts of their values.

    Examples
    --------
    >>> json_rows({"B4": [b"1", b"2"], "B5": [b"[3]", b"[4]"]})
    [b'{"B4":1,"B5":[3]}', b'{"B4":2,"B5":[4]}']
    """
    keys = [json_string(name).replace(b"%", b"%%") for name in texts]
    template = b"{" + b",".join(key + b":%s" for key in keys) + b"}"
    return [template % row for row in zip(*texts.values(), strict=True)]


def json_string(value: str) -> bytes:
    r"""A string as JSON, in ASCII.

    Examples
    --------
    >>> json_string("Bäume")
    b'"B\\u00e4ume"'
    """
    return json.dumps(value).encode()


def least_text_size(dtype: npt.DTypeLike, shape: tuple[int, ...], *, quoted: bool = False) -> int:
    """Characters that the JSON text of an array takes at least.

    Parameters
    ----------
    dtype : dtype
    shape : tuple of int
        Of the array.
    quoted : bool, optional
        As in `json_texts`.

    Raises
    ------
    OptionError
        If JSON has no such values.

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
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
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
