"""From the bytes of a request to those of its answer, in each of the forms that are spoken."""

from __future__ import annotations

from xee_tf.connector import DEFAULT_SIGNATURE, Arrays
from xee_tf.remote.answers import Code
from xee_tf.remote.payloads.predict_messages import (
    PredictRequest,
    ServedModel,
    encode_predict_response,
)
from xee_tf.serving.failures import RequestError
from xee_tf.serving.json_messages import JsonRequest, encode_json_response
from xee_tf.serving.models import ModelVersion

__all__ = ["predict_json", "predict_message"]


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
