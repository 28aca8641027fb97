"""Arrays as JSON text, many numbers at a time: in as few digits as bring every number back."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xee_tf.errors import OptionError
from xee_tf.records.ragged import Ragged, join
from xee_tf.records.tensor_types import STRING, tensor_type

__all__ = ["json_texts", "json_value_bounds"]

# Characters of the longest number: "-0.00000123456789" and the like; 9 and 17 digits bring floats back.
_LONGEST_FLOATS = {"float16": 17, "bfloat16": 17, "float32": 17, "float64": 25}
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


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
    shape = batch.shape[1:]
    count = int(np.prod(shape, dtype=np.int64))
    if not len(batch):
        return []
    if not count:
        return [json.dumps(np.empty(shape).tolist(), separators=(",", ":")).encode()] * len(batch)
    quote = b'"' if quoted and batch.dtype.kind != "b" and tensor_type(batch.dtype) is not STRING else b""
    closing = quote + b"]" * len(shape)

    def between(closed: int) -> bytes:
        if closed < 0:  # in front of the first value
            return b"[" * len(shape) + quote
        return quote + b"]" * closed + b"," + b"[" * closed + quote

    # How many lists end in front of each value: those whose length divides its place.
    places = np.arange(count)
    closed = np.zeros(count, np.int64)
    for axis in range(1, len(shape)):
        closed += places % int(np.prod(shape[axis:], dtype=np.int64)) == 0
    closed[0] = -1
    columns = [Ragged.looked_up(between, np.tile(closed, len(batch))), *_values(batch.reshape(-1), in_base64)]
    text = join(columns)
    starts = [*text.starts[::count].tolist(), len(text.data)]
    return [text.data[begin:end].tobytes() + closing for begin, end in pairwise(starts)]


def json_value_bounds(dtype: npt.DTypeLike, *, quoted: bool = False) -> tuple[int, int]:
    """Characters of the shortest and of the longest number of a dtype.

    Raises
    ------
    OptionError
        If JSON has no such values, or they are strings.

    Examples
    --------
    >>> json_value_bounds("uint8"), json_value_bounds("float32"), json_value_bounds("bool")
    ((1, 3), (3, 17), (4, 5))
    """
    name = np.dtype(dtype).name
    quotes = 2 if quoted else 0
    if name == "bool":
        return 4, 5
    if name in _LONGEST_FLOATS:
        return 3 + quotes, _LONGEST_FLOATS[name] + quotes
    if np.dtype(dtype).kind not in "iu":
        raise OptionError(f"The JSON text of {name} values has no bounds.")
    info = np.iinfo(dtype)
    return 1 + quotes, max(len(str(info.min)), len(str(info.max))) + quotes


def _values(values: npt.NDArray[Any], in_base64: bool) -> list[Ragged]:
    """The text of each value, and what follows it."""
    kind = tensor_type(values.dtype)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if kind is STRING:
        return [
            _ragged(pa.array([_string(value, in_base64) for value in values.tolist()], pa.large_binary()))
        ]
    if values.dtype.kind in "biu":
        return [_ragged(pc.cast(pa.array(values), pa.large_string()))]
    if values.dtype.kind == "c":
        raise OptionError("JSON has no complex numbers: send the real and the imaginary part.")
    if kind.name in ("float16", "bfloat16"):
        values = values.astype(np.float32)
    text = pc.cast(pa.array(values), pa.large_string())
    finite = np.isfinite(values)
    if not finite.all():
        spelled = pa.array([_NOT_FINITE[repr(float(value))] for value in values[~finite]], pa.large_string())
        text = pc.replace_with_mask(text, pa.array(~finite), spelled)
    found = _ragged(text)
    # Whole numbers lack what tells that they are floats; some servers take large integers for a mistake.
    telling = np.isin(found.data, np.frombuffer(b".eNI", np.uint8))
    before = np.concatenate([[0], np.cumsum(telling)])
    bare = before[found.starts] == before[found.starts + found.sizes]
    if not bare.any():
        return [found]
    return [found, Ragged.looked_up(lambda missing: b".0" * missing, bare.astype(np.int64))]


def _ragged(texts: Any) -> Ragged:
    """The strings of an Arrow array, without a copy."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return Ragged(np.frombuffer(data or b"", np.uint8), edges[:-1], np.diff(edges))


def _string(value: object, in_base64: bool) -> bytes:
    if not isinstance(value, str | bytes):
        raise OptionError(f"An array of strings holds {value!r}; expected str or bytes only.")
    if not in_base64:
        try:
            return json.dumps(value if isinstance(value, str) else value.decode()).encode()
        except UnicodeDecodeError:
            pass
    return b'{"b64":"%s"}' % base64.b64encode(value.encode() if isinstance(value, str) else value)
