"""Payload formats that are JSON rows: SERIALIZED_TF_TENSORS, RAW_JSON and ND_ARRAYS."""

from __future__ import annotations

import base64
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Items, Signature
from xee_tf.errors import OptionError
from xee_tf.remote.payloads.json_arrays import (
    decode_json_outputs,
    encode_elements,
    encode_rows,
    json_string,
    longest_value,
    min_element_size,
)
from xee_tf.remote.payloads.payload import Dtypes, EncodedBatch, Payload
from xee_tf.remote.payloads.strings import (
    base64_size,
    min_string_size,
    parse_strings,
    serialize_tensors,
    strings_signature,
)

__all__ = ["NdArrays", "RawJson", "SerializedTensors"]


class _JsonPayload(Payload):
    """A payload format that is a list of JSON rows."""

    is_grpc = False
    content_type = "application/json"

    @abstractmethod
    def _rows(self, arrays: Arrays) -> list[bytes]:
        """Encode each instance as JSON."""

    @abstractmethod
    def _min_row_size(self, items: Items) -> int:
        """Return the minimum size in bytes of an instance as JSON."""

    def _encode_batch(self, arrays: Arrays) -> EncodedBatch:
        rows, envelope = self._rows(arrays), self._envelope_size
        offsets = [0, *accumulate(len(row) + 1 for row in rows)]
        return EncodedBatch(
            size=lambda first, stop: envelope + offsets[stop] - offsets[first],
            body=lambda first, stop: self._body(rows[first:stop]),
        )

    def _body(self, rows: Sequence[bytes]) -> bytes:
        name = self.served_model.signature_name
        signature = b'"signature_name":%s,' % json_string(name) if name else b""
        return b'{%s"instances":[%s]}' % (signature, b",".join(rows))

    @property
    def _envelope_size(self) -> int:
        """Size of a request in bytes without its rows and their commas; the last row has no comma."""
        return len(self._body([])) - 1

    def min_size(self, items: Items, count: int = 1) -> int:
        """See `Payload`."""
        return self._envelope_size + count * (self._min_row_size(items) + 1)

    def _decode(self, data: bytes, name: str, dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
        return decode_json_outputs(data, name, dtypes)


@dataclass(frozen=True)
class SerializedTensors(_JsonPayload):
    """Rows whose values are serialized tensors.

    Parameters
    ----------
    model_decodes : bool
        Whether the model decodes URL-safe base64, as models from `prepare_model` do. Otherwise the model
        expects TensorProtos, which are sent as ``{"b64": ...}`` and decoded by the server.

    Examples
    --------
    >>> SerializedTensors().encode({"B4": np.array([1], "uint8")})
    b'{"instances":[{"B4":"CAQSACIBAQ=="}]}'
    """

    model_decodes: bool = True

    format = "SERIALIZED_TF_TENSORS"

    def _rows(self, arrays: Arrays) -> list[bytes]:
        return encode_rows({name: self._encode_tensors(array) for name, array in arrays.items()})

    def _encode_tensors(self, array: npt.NDArray[Any]) -> list[bytes]:
        strings = serialize_tensors(array, in_base64=self.model_decodes)
        if self.model_decodes:
            return [b'"%s"' % string for string in strings]  # base64 contains nothing to escape
        return [b'{"b64":"%s"}' % base64.b64encode(string) for string in strings]

    def _min_row_size(self, items: Items) -> int:
        sizes = {}
        for name, (dtype, shape) in items.items():
            size = min_string_size(dtype, shape, in_base64=self.model_decodes)
            sizes[name] = size + 2 if self.model_decodes else base64_size(size) + 10
        return _named_row_size(sizes)

    def _decode(self, data: bytes, name: str, dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
        return parse_strings(decode_json_outputs(data, name))

    def batch_signature(self, signature: Signature, model: str) -> Signature:
        """See `Payload`."""
        return strings_signature(signature, model, self.format, alternative=RawJson.format)


@dataclass(frozen=True)
class RawJson(_JsonPayload):
    """Rows whose values are nested lists of numbers.

    Parameters
    ----------
    numbers_as_strings : bool
        Whether numbers are written as strings (``"12.5"``), as by Earth Engine. TensorFlow Serving expects
        numbers (``12.5``).

    Examples
    --------
    >>> raw = RawJson()
    >>> raw.encode({"B4": np.array([0.5, 2])})
    b'{"instances":[{"B4":"0.5"},{"B4":"2.0"}]}'
    >>> raw.decode(b'{"predictions": [{"p": 1}, {"p": 0}]}')
    {'p': array([1, 0])}
    """

    numbers_as_strings: bool = True

    format = "RAW_JSON"

    def _rows(self, arrays: Arrays) -> list[bytes]:
        quoted = self.numbers_as_strings
        return encode_rows({name: encode_elements(array, quoted=quoted) for name, array in arrays.items()})

    @property
    def sizes_vary(self) -> bool:
        """See `Payload`."""
        return True

    def largest_batch(self, items: Items, count: int) -> dict[str, npt.NDArray[Any]]:
        """See `Payload`."""
        return {
            name: np.broadcast_to(longest_value(dtype), (count, *shape))
            for name, (dtype, shape) in items.items()
        }

    def _min_row_size(self, items: Items) -> int:
        quoted = self.numbers_as_strings
        return _named_row_size({name: min_element_size(*item, quoted=quoted) for name, item in items.items()})


@dataclass(frozen=True)
class NdArrays(_JsonPayload):
    """Rows without names: nested lists of numbers, bands first.

    The arrays of an instance are stacked in order along a new first axis. Bands lose their last axis, which
    has length 1: the shape is (bands, height, width), as in PyTorch and Earth Engine's samples. A single
    array that is not a band is not changed; Earth Engine does not document this case.

    Examples
    --------
    >>> NdArrays().encode({"B4": np.ones((1, 1, 2, 1)), "B5": np.zeros((1, 1, 2, 1))})
    b'{"instances":[[[[1.0,1.0]],[[0.0,0.0]]]]}'
    """

    format = "ND_ARRAYS"
    single_input = True

    def _rows(self, arrays: Arrays) -> list[bytes]:
        return encode_elements(_bands_first(arrays))

    @property
    def sizes_vary(self) -> bool:
        """See `Payload`."""
        return True

    @property
    def answers(self) -> Payload:
        """See `Payload`."""
        return RawJson(numbers_as_strings=False)

    def largest_batch(self, items: Items, count: int) -> dict[str, npt.NDArray[Any]]:
        """See `Payload`; the bands are stacked, in their common dtype."""
        common = np.result_type(*(np.dtype(dtype) for dtype, _ in items.values()))
        value = longest_value(common)
        return {name: np.broadcast_to(value, (count, *shape)) for name, (_, shape) in items.items()}

    def _min_row_size(self, items: Items) -> int:
        empty = _bands_first({name: np.empty((0, *shape), dtype) for name, (dtype, shape) in items.items()})
        return min_element_size(empty.dtype, empty.shape[1:])


def _bands_first(arrays: Arrays) -> npt.NDArray[Any]:
    """Stack the arrays of each instance along a new first axis; see `NdArrays`."""
    parts = [array[..., 0] if array.ndim > 2 and array.shape[-1] == 1 else array for array in arrays.values()]
    if len(parts) == 1 and parts[0].ndim == next(iter(arrays.values())).ndim > 1:
        return parts[0]
    shapes = {array.shape[1:] for array in parts}
    if len(shapes) != 1:
        raise OptionError(
            "All bands must have the same shape for ND_ARRAYS, which has no names; got "
            f"{ {name: array.shape[1:] for name, array in arrays.items()} }."
        )
    return np.stack(parts, axis=1)


def _named_row_size(sizes: dict[str, int]) -> int:
    """Return the size in bytes of a row with names, from the sizes of its values."""
    return 1 + sum(len(json_string(name)) + 2 + size for name, size in sizes.items())
