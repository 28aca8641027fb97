"""From the bytes of a request to those of its answer, in each of the forms that are spoken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from xee_tf.connector import DEFAULT_SIGNATURE, Arrays
from xee_tf.errors import RecordError
from xee_tf.remote import Code
from xee_tf.remote.payloads import (
    UNNAMED,
    PredictRequest,
    ServedModel,
    array_of,
    columns_of,
    columns_of_rows,
    encode_predict_response,
    json_rows,
    json_texts,
    parse_object,
)
from xee_tf.serving.failures import RequestError
from xee_tf.serving.models import ModelVersion

__all__ = ["JsonRequest", "encode_json_response", "predict_json", "predict_message"]


@dataclass(frozen=True)
class JsonRequest:
    """A request by rows (``instances``) or by columns (``inputs``): nested lists by name.

    An empty `signature_name` stands for the default one.
    """

    columns: Mapping[str, Any]
    signature_name: str
    by_columns: bool

    @classmethod
    def parse(cls, data: bytes) -> JsonRequest:
        """From JSON; NaN and the infinities as Python writes them.

        Examples
        --------
        >>> request = JsonRequest.parse(b'{"instances": [[1, 2], [3, 4]]}')
        >>> request.inputs({"x": "float32"})
        {'x': array([[1., 2.],
               [3., 4.]], dtype=float32)}
        """
        message = parse_object(data, "request")
        if ("instances" in message) == ("inputs" in message):
            raise RecordError("A request holds either 'instances' (rows) or 'inputs' (columns).")
        signature_name = message.get("signature_name", "")
        if not isinstance(signature_name, str):
            raise RecordError(f"'signature_name' must be a string; got {signature_name!r}.")
        if "inputs" in message:
            return cls(columns_of(message["inputs"]), signature_name, True)
        return cls(columns_of_rows(message["instances"], "instances"), signature_name, False)

    def inputs(self, dtypes: Mapping[str, npt.DTypeLike]) -> dict[str, npt.NDArray[Any]]:
        """The arrays of the inputs of a signature, which `dtypes` names; object stands for strings."""
        columns = self.columns
        if set(columns) == {UNNAMED} and len(dtypes) == 1:
            columns = {next(iter(dtypes)): columns[UNNAMED]}
        if set(columns) != set(dtypes):
            got = "no names" if set(columns) == {UNNAMED} else sorted(columns)
            raise RecordError(f"The model has the inputs {sorted(dtypes)}; the request has {got}.")
        return {name: array_of(columns[name], name, dtype) for name, dtype in dtypes.items()}


def predict_json(model: ModelVersion, body: bytes, *, rows_only: bool = False) -> bytes:
    """TensorFlow Serving's JSON: rows or columns, of any signature.

    Google's addresses take `rows_only`, of the default signature.
    """
    request = JsonRequest.parse(body)
    if rows_only and (request.by_columns or request.signature_name):
        name = "inputs" if request.by_columns else "signature_name"
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f'Invalid JSON payload received. Unknown name "{name}": this address takes "instances" and the '
            "default signature. rawPredict takes what TensorFlow Serving does.",
        )
    called = model.signature(request.signature_name)
    inputs = called.signature.inputs or {}
    dtypes = {name: info.dtype for name, info in inputs.items() if info.dtype is not None}
    outputs = called.predict(request.inputs(dtypes))
    if not request.by_columns:
        _require_rows(outputs)
    return encode_json_response(outputs, by_columns=request.by_columns)


def predict_message(request: PredictRequest, model: ModelVersion, limit: int) -> bytes:
    """TensorFlow Serving's PredictRequest.

    A value that is listed once may stand for all of a tensor: `limit` is what the tensors may have in bytes,
    so that a small message cannot fill the memory.

    The answer holds its values as ``tensor_content``: TensorFlow Serving does so if it was started with
    ``--enable_serialization_as_tensor_content``, and every client reads both forms.
    """
    name = request.served_model.signature_name or DEFAULT_SIGNATURE
    called = model.signature(name)
    wanted = request.output_filter
    known = set(called.signature.outputs or ())
    for output in wanted:
        if output not in known:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {output} Outputs expected to be in the set "
                f"{{{','.join(sorted(known))}}}.",
            )
    size = sum(array.nbytes for array in request.inputs.values())
    if size > limit:
        raise RequestError(
            Code.INVALID_ARGUMENT, f"The inputs have {size} bytes; the limit is {limit} bytes.", status=413
        )
    outputs = called.predict(request.inputs)
    if wanted:
        outputs = {output: outputs[output] for output in dict.fromkeys(wanted)}
    return encode_predict_response(outputs, ServedModel(model.name, model.version, signature_name=name))


def encode_json_response(outputs: Arrays, *, by_columns: bool = False) -> bytes:
    """A response, as TensorFlow Serving writes it.

    Rows of one output are bare. Strings are ``{"b64": ...}`` if the name of their output ends with
    ``_bytes``, else text.

    Examples
    --------
    >>> import numpy as np
    >>> encode_json_response({"p": np.array([0.5, 1])})
    b'{"predictions":[0.5,1.0]}'
    """
    batches = {name: array[None] if by_columns else array for name, array in outputs.items()}
    texts = {name: json_texts(batch, in_base64=name.endswith("_bytes")) for name, batch in batches.items()}
    rows = next(iter(texts.values())) if len(texts) == 1 else json_rows(texts)
    if by_columns:
        return b'{"outputs":%s}' % rows[0]
    return b'{"predictions":[%s]}' % b",".join(rows)


def _require_rows(outputs: Arrays) -> None:
    """Rows can be told apart only where all outputs have as many."""
    counts = {array.shape[:1] for array in outputs.values()}
    if len(counts) != 1 or counts == {()}:
        shapes = {name: array.shape for name, array in outputs.items()}
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f"The outputs have inconsistent batch sizes, so that they make no rows: {shapes}. Ask by "
            'columns: {"inputs": ...}.',
        )
