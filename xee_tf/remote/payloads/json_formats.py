"""The payload formats of JSON rows: SERIALIZED_TF_TENSORS, RAW_JSON and ND_ARRAYS."""

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
    json_rows,
    json_string,
    json_texts,
    least_text_size,
)
from xee_tf.remote.payloads.payload import Dtypes, EncodedBatch, Payload
from xee_tf.remote.payloads.strings import (
    base64_size,
    least_string_size,
    parse_strings,
    serialise_tensors,
    strings_signature,
)

__all__ = ["NdArrays", "RawJson", "SerializedTensors"]


class _JsonPayload(Payload):
    """A format of JSON rows."""

    is_grpc = False
    content_type = "application/json"

    @abstractmethod
    def _rows(self, arrays: Arrays) -> list[bytes]:
        """The JSON text of each instance."""

    @abstractmethod
    def _least_row_size(self, items: Items) -> int:
        """Bytes that the JSON text of an instance takes at least."""

    def _encode_batch(self, arrays: Arrays) -> EncodedBatch:
        rows, envelope = self._rows(arrays), self._envelope_size
        edges = [0, *accumulate(len(row) + 1 for row in rows)]
        return EncodedBatch(
            size=lambda first, stop: envelope + edges[stop] - edges[first],
            body=lambda first, stop: self._body(rows[first:stop]),
        )

    def _body(self, rows: Sequence[bytes]) -> bytes:
        name = self.served_model.signature_name
        signature = b'"signature_name":%s,' % json_string(name) if name else b""
        return b'{%s"instances":[%s]}' % (signature, b",".join(rows))

    @property
    def _envelope_size(self) -> int:
        """Bytes of a request beside its rows, each with a comma: there is one comma less."""
        return len(self._body([])) - 1

    def least_size(self, items: Items, count: int = 1) -> int:
        """See `Payload`."""
        return self._envelope_size + count * (self._least_row_size(items) + 1)

    def _decode(self, data: bytes, name: str, dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
        return decode_json_outputs(data, name, dtypes)


@dataclass(frozen=True)
class SerializedTensors(_JsonPayload):
    """Rows whose values are strings of TensorProtos.

    Parameters
    ----------
    model_decodes : bool
        Whether the model itself decodes URL-safe base64, as `prepare_model` makes it. If not, it takes
        TensorProtos, and ``{"b64": ...}`` is sent, which the server decodes.

    Examples
    --------
    >>> SerializedTensors().encode({"B4": np.array([1], "uint8")})
    b'{"instances":[{"B4":"CAQSACIBAQ=="}]}'
    """

    model_decodes: bool = True

    format = "SERIALIZED_TF_TENSORS"

    def _rows(self, arrays: Arrays) -> list[bytes]:
        return json_rows({name: self._texts(array) for name, array in arrays.items()})

    def _texts(self, array: npt.NDArray[Any]) -> list[bytes]:
        strings = serialise_tensors(array, in_base64=self.model_decodes)
        if self.model_decodes:
            return [b'"%s"' % string for string in strings]  # base64 needs no escapes
        return [b'{"b64":"%s"}' % base64.b64encode(string) for string in strings]

    def _least_row_size(self, items: Items) -> int:
        sizes = {}
        for name, (dtype, shape) in items.items():
            size = least_string_size(dtype, shape, in_base64=self.model_decodes)
            sizes[name] = size + 2 if self.model_decodes else base64_size(size) + 10
        return _named_row_size(sizes)

    def _decode(self, data: bytes, name: str, dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
        return parse_strings(decode_json_outputs(data, name))

    def batch_signature(self, signature: Signature, model: str) -> Signature:
        """See `Payload`."""
        return strings_signature(signature, model, self.format, otherwise=RawJson.format)


@dataclass(frozen=True)
class RawJson(_JsonPayload):
    """Rows whose values are nested lists of numbers, as strings.

    Parameters
    ----------
    numbers_as_strings : bool
        Earth Engine writes ``"12.5"``. TensorFlow Serving takes 12.5.

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
        return json_rows({name: json_texts(array, quoted=quoted) for name, array in arrays.items()})

    def _least_row_size(self, items: Items) -> int:
        quoted = self.numbers_as_strings
        return _named_row_size({name: least_text_size(*item, quoted=quoted) for name, item in items.items()})


@dataclass(frozen=True)
class NdArrays(_JsonPayload):
    """Rows without names: nested lists of numbers, bands first.

    The arrays of an instance are stacked along a new first axis, in their order. Bands, whose last axis has
    the length 1, lose it: (bands, height, width), as PyTorch and Earth Engine's samples have it. A single
    array that is not a band stays as it is, which is our choice: Earth Engine does not document it.

    Examples
    --------
    >>> NdArrays().encode({"B4": np.ones((1, 1, 2, 1)), "B5": np.zeros((1, 1, 2, 1))})
    b'{"instances":[[[[1.0,1.0]],[[0.0,0.0]]]]}'
    """

    format = "ND_ARRAYS"
    one_input = True

    def _rows(self, arrays: Arrays) -> list[bytes]:
        return json_texts(_bands_first(arrays))

    def _least_row_size(self, items: Items) -> int:
        empty = _bands_first({name: np.empty((0, *shape), dtype) for name, (dtype, shape) in items.items()})
        return least_text_size(empty.dtype, empty.shape[1:])


def _bands_first(arrays: Arrays) -> npt.NDArray[Any]:
    """What `NdArrays` sends."""
    parts = [array[..., 0] if array.ndim > 2 and array.shape[-1] == 1 else array for array in arrays.values()]
    if len(parts) == 1 and parts[0].ndim == next(iter(arrays.values())).ndim > 1:
        return parts[0]
    shapes = {array.shape[1:] for array in parts}
    if len(shapes) != 1:
        raise OptionError(
            "ND_ARRAYS has no names, so that all bands must have one shape; got "
            f"{ {name: array.shape[1:] for name, array in arrays.items()} }."
        )
    return np.stack(parts, axis=1)


def _named_row_size(sizes: dict[str, int]) -> int:
    """Bytes of a row with names, from those of its values."""
    return 1 + sum(len(json_string(name)) + 2 + size for name, size in sizes.items())
