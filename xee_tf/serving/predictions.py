"""Decode requests, run the model and encode the response, as JSON or protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from xee_tf.connector import DEFAULT_SIGNATURE, Arrays
from xee_tf.display import quoted
from xee_tf.errors import RecordError, excerpt
from xee_tf.remote import Code
from xee_tf.remote.payloads import (
    UNNAMED,
    PredictRequest,
    ServedModel,
    decode_array,
    encode_elements,
    encode_predict_response,
    encode_rows,
    parse_columns,
    parse_object,
    parse_rows,
)
from xee_tf.serving.failures import RequestError
from xee_tf.serving.models import ModelVersion

__all__ = ["JsonRequest", "encode_json_response", "predict_json", "predict_message"]


@dataclass(frozen=True)
class JsonRequest:
    """A request with rows (``instances``) or columns (``inputs``), as nested lists by name.

    An empty `signature_name` is the default signature.
    """

    columns: Mapping[str, Any]
    signature_name: str
    by_columns: bool

    @classmethod
    def parse(cls, data: bytes) -> JsonRequest:
        """Parse JSON, which may contain NaN and infinities.

        Examples
        --------
        >>> request = JsonRequest.parse(b'{"instances": [[1, 2], [3, 4]]}')
        >>> request.inputs({"x": "float32"})
        {'x': array([[1., 2.],
               [3., 4.]], dtype=float32)}
        """
        message = parse_object(data, "request")
        if ("instances" in message) == ("inputs" in message):
            raise RecordError("A request must contain either 'instances' (rows) or 'inputs' (columns).")
        signature_name = message.get("signature_name", "")
        if not isinstance(signature_name, str):
            raise RecordError(f"'signature_name' must be a string; got {excerpt(signature_name)}.")
        if "inputs" in message:
            return cls(parse_columns(message["inputs"]), signature_name, True)
        return cls(parse_rows(message["instances"], "instances"), signature_name, False)

    def inputs(self, dtypes: Mapping[str, npt.DTypeLike]) -> dict[str, npt.NDArray[Any]]:
        """Convert the columns to arrays with the dtypes of the inputs; object is the dtype of strings."""
        columns = self.columns
        if set(columns) == {UNNAMED} and len(dtypes) == 1:
            columns = {next(iter(dtypes)): columns[UNNAMED]}
        if set(columns) != set(dtypes):
            got = "no names" if set(columns) == {UNNAMED} else quoted(columns)
            raise RecordError(f"The model has the inputs {quoted(sorted(dtypes))}; got {got}.")
        return {name: decode_array(columns[name], name, dtype) for name, dtype in dtypes.items()}


def predict_json(model: ModelVersion, body: bytes, *, rows_only: bool = False) -> bytes:
    """Predict a request in the JSON of TensorFlow Serving, with rows or columns, for any signature.

    With `rows_only`, as for Vertex AI and AI Platform, only rows for the default signature are accepted.
    """
    request = JsonRequest.parse(body)
    if rows_only and (request.by_columns or request.signature_name):
        name = "inputs" if request.by_columns else "signature_name"
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f'Invalid JSON payload received. Unknown name "{name}": this URL accepts only "instances" for '
            "the default signature. Use rawPredict for other requests to TensorFlow Serving.",
        )
    batcher = model.signature(request.signature_name)
    inputs = batcher.signature.inputs or {}
    dtypes = {name: info.dtype for name, info in inputs.items() if info.dtype is not None}
    outputs = batcher.predict(request.inputs(dtypes))
    if not request.by_columns:
        _check_rows(outputs)
    return encode_json_response(outputs, by_columns=request.by_columns)


def predict_message(request: PredictRequest, model: ModelVersion, limit: int) -> bytes:
    """Predict a PredictRequest of TensorFlow Serving.

    `limit` is the maximum size of the decoded tensors in bytes. Without it, a small message could fill the
    memory, because a single listed value may be repeated for a whole tensor.

    The response stores its values as ``tensor_content``, as TensorFlow Serving does if it is started with
    ``--enable_serialization_as_tensor_content``. Clients support both forms.
    """
    name = request.served_model.signature_name or DEFAULT_SIGNATURE
    batcher = model.signature(name)
    available = set(batcher.signature.outputs or ())
    for output in request.output_filter:
        if output not in available:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {output} Outputs expected to be in "
                f"the set {{{','.join(sorted(available))}}}.",
            )
    size = sum(array.nbytes for array in request.inputs.values())
    if size > limit:
        raise RequestError(
            Code.INVALID_ARGUMENT, f"The inputs take {size} bytes; the limit is {limit} bytes.", status=413
        )
    outputs = batcher.predict(request.inputs)
    if request.output_filter:
        outputs = {output: outputs[output] for output in dict.fromkeys(request.output_filter)}
    return encode_predict_response(outputs, ServedModel(model.name, model.version, signature_name=name))


def encode_json_response(outputs: Arrays, *, by_columns: bool = False) -> bytes:
    """Encode a response like TensorFlow Serving.

    Rows of a single output have no names. Strings are encoded as ``{"b64": ...}`` if the name of their output
    ends with ``_bytes``, otherwise as text.

    Examples
    --------
    >>> import numpy as np
    >>> encode_json_response({"p": np.array([0.5, 1])})
    b'{"predictions":[0.5,1.0]}'
    """
    batches = {name: array[None] if by_columns else array for name, array in outputs.items()}
    columns = {
        name: encode_elements(batch, in_base64=name.endswith("_bytes")) for name, batch in batches.items()
    }
    rows = next(iter(columns.values())) if len(columns) == 1 else encode_rows(columns)
    if by_columns:
        return b'{"outputs":%s}' % rows[0]
    return b'{"predictions":[%s]}' % b",".join(rows)


def _check_rows(outputs: Arrays) -> None:
    """Check that all outputs have the same number of rows."""
    counts = {array.shape[:1] for array in outputs.values()}
    if len(counts) != 1 or counts == {()}:
        shapes = {name: array.shape for name, array in outputs.items()}
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f"The outputs have inconsistent batch sizes and cannot be returned as rows: {shapes}. Send "
            'columns instead: {"inputs": ...}.',
        )
