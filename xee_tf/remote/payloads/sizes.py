"""Bytes of requests told from dtypes and shapes alone: at least and at most."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xee_tf.records.tensor_types import STRING, tensor_type
from xee_tf.records.tensors import tensor_bound, tensor_size
from xee_tf.remote.payloads.examples import EXAMPLES_INPUT, example_bounds
from xee_tf.remote.payloads.json_messages import join_rows
from xee_tf.remote.payloads.json_text import json_value_bounds
from xee_tf.remote.payloads.nd_arrays import bands_first
from xee_tf.remote.payloads.predict_messages import predict_request_size

if TYPE_CHECKING:
    from xee_tf.remote.payloads.formats import Payload

__all__ = ["Bounds", "Items", "request_bounds"]

Items = Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]]
"""Dtype and shape of what one instance has under each name."""

Bounds = tuple[int, int]


def request_bounds(payload: Payload, items: Items, count: int, string_size: int) -> Bounds:
    """Bytes that a request of `count` instances takes at least and at most; see `Payload.bounds`."""
    if payload.is_grpc:
        tensors = _input_bounds(payload, items, count, string_size)
        least, most = (
            predict_request_size({name: size[end] for name, size in tensors.items()}, payload.model_spec)
            for end in (0, 1)
        )
    else:
        envelope = len(join_rows([], payload.model_spec.signature_name)) + count - 1
        least, most = (envelope + count * size for size in _row_bounds(payload, items, string_size))
    return least, most


def _input_bounds(payload: Payload, items: Items, count: int, string_size: int) -> dict[str, Bounds]:
    """Bytes of each tensor of a PredictRequest."""
    if payload.format == "GRPC_TF_TENSORS":
        return {
            name: _tensor_bounds(dtype, (count, *shape), typed=payload.typed, string_size=string_size)
            for name, (dtype, shape) in items.items()
        }
    if payload.format == "GRPC_TF_EXAMPLES":
        strings = {EXAMPLES_INPUT: example_bounds(items, payload.feature_types, string_size)}
    else:
        strings = _string_bounds(payload, items, string_size)
    sized = {
        name: [_tensor_bounds(object, (count,), string_size=size)[1] for size in sizes]
        for name, sizes in strings.items()
    }
    return {name: (least, most) for name, (least, most) in sized.items()}


def _string_bounds(payload: Payload, items: Items, string_size: int) -> dict[str, Bounds]:
    """Bytes of the strings of serialised tensors."""
    found = {}
    for name, (dtype, shape) in items.items():
        least, most = _tensor_bounds(dtype, shape, typed=payload.typed, string_size=string_size)
        found[name] = (_base64_size(least), _base64_size(most)) if payload.model_decodes else (least, most)
    return found


def _row_bounds(payload: Payload, items: Items, string_size: int) -> Bounds:
    """Bytes of the JSON text of an instance."""
    if payload.format == "SERIALIZED_TF_TENSORS":
        texts = {}
        for name, (least, most) in _string_bounds(payload, items, string_size).items():
            if not payload.model_decodes:  # {"b64":"..."} rather than "..."
                least, most = _base64_size(least) + 8, _base64_size(most) + 8
            texts[name] = (least + 2, most + 2)
        return _named_row_bounds(texts)
    if payload.format == "ND_ARRAYS":
        empty = bands_first({name: np.empty((0, *shape), dtype) for name, (dtype, shape) in items.items()})
        return _text_bounds(empty.dtype, empty.shape[1:], string_size=string_size)
    return _named_row_bounds(
        {
            name: _text_bounds(
                dtype,
                shape,
                quoted=payload.numbers_as_strings and np.dtype(dtype).kind != "b",
                string_size=string_size,
            )
            for name, (dtype, shape) in items.items()
        }
    )


def _tensor_bounds(
    dtype: npt.DTypeLike, shape: tuple[int, ...], *, typed: bool = False, string_size: int = 0
) -> Bounds:
    """Bytes of a serialised tensor; equal but for strings and for integers that are listed.

    Examples
    --------
    >>> _tensor_bounds("uint16", (100,)), _tensor_bounds("uint16", (100,), typed=True)
    ((211, 211), (110, 311))
    """
    dtype = np.dtype(dtype)
    kind = tensor_type(dtype)
    most = tensor_bound(dtype, shape, typed=typed, string_size=string_size)
    if kind is STRING:
        return tensor_bound(dtype, shape), most
    if typed and kind.wire == "varint":
        return tensor_size(dtype, shape, math.prod(shape), typed=True), most
    return most, most


def _base64_size(size: int) -> int:
    """Characters of the base64 of so many bytes, padded.

    Examples
    --------
    >>> _base64_size(4)
    8
    """
    return -(-size // 3) * 4


def _text_bounds(
    dtype: npt.DTypeLike, shape: tuple[int, ...], *, quoted: bool = False, string_size: int = 0
) -> Bounds:
    """Characters of an array as nested JSON lists.

    Examples
    --------
    >>> _text_bounds("uint8", (2, 2))  # [[0,0],[0,0]] to [[255,255],[255,255]]
    (13, 21)
    """
    if tensor_type(np.dtype(dtype)) is STRING:
        # A character may become "\u0000"; what is not UTF-8 becomes {"b64":"..."}.
        bounds = 2, max(2 + 6 * string_size, 10 + _base64_size(string_size))
    else:
        bounds = json_value_bounds(dtype, quoted=quoted)
    lists, marks = 1, 0
    for length in shape:
        marks += lists * (2 + max(0, length - 1))  # brackets and commas
        lists *= length
    return marks + lists * bounds[0], marks + lists * bounds[1]


def _named_row_bounds(texts: Mapping[str, Bounds]) -> Bounds:
    """Bytes of a row with names, from those of its values."""
    names = sum(len(json.dumps(name)) + 1 for name in texts)
    marks = 2 + max(0, len(texts) - 1)
    least, most = (sum(text[end] for text in texts.values()) for end in (0, 1))
    return names + marks + least, names + marks + most
