"""What TensorFlow Serving says of a model: its signatures and state, as JSON and as messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from xee_tf.errors import RecordError
from xee_tf.records.wire import encode_varint, read_fields
from xee_tf.remote.payloads.predict_messages import ModelSpec
from xee_tf.serving.models import ModelVersion

__all__ = [
    "decode_metadata_request",
    "encode_metadata_response",
    "metadata_json",
    "status_json",
]

_SIGNATURES = "signature_def"  # the only kind of metadata that TensorFlow Serving has
_TYPE = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


def status_json(versions: Iterable[ModelVersion]) -> bytes:
    """The answer to ``GET /v1/models/NAME``: whatever is served is ready."""
    ready = {"error_code": "OK", "error_message": ""}
    states = [{"version": str(each.version), "state": "AVAILABLE", "status": ready} for each in versions]
    return json.dumps({"model_version_status": states}).encode()


def metadata_json(model: ModelVersion) -> bytes:
    """The answer to ``GET /v1/models/NAME/metadata``."""
    from google.protobuf.json_format import MessageToDict

    signatures: dict[str, Any] = {
        name: MessageToDict(
            found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, found in model.signature_defs.items()
    }
    spec = {"name": model.name, "signature_name": "", "version": str(model.version)}
    return json.dumps(
        {"model_spec": spec, "metadata": {_SIGNATURES: {_SIGNATURES: signatures}}}, indent=1
    ).encode()


def decode_metadata_request(data: bytes) -> ModelSpec:
    """The model that a GetModelMetadataRequest means.

    Raises
    ------
    RecordError
        If it is no such request, or wants something else than signatures.
    """
    spec, wanted = ModelSpec(), []
    for number, wire, body in read_fields(memoryview(data)):
        if number == 1 and wire == 2:
            spec = ModelSpec.decode(body)
        elif number == 2 and wire == 2:
            wanted.append(str(body, "utf-8", "replace"))
    if not wanted:
        raise RecordError("GetModelMetadataRequest must specify at least one metadata_field")
    for name in wanted:
        if name != _SIGNATURES:
            raise RecordError(f"Metadata field {name} is not supported")
    return spec


def encode_metadata_response(model: ModelVersion) -> bytes:
    """``GetModelMetadataResponse{model_spec = 1, map<string, Any> metadata = 2}``."""
    signatures = b"".join(
        _message(1, _message(1, name.encode()) + _message(2, found.SerializeToString()))
        for name, found in model.signature_defs.items()
    )
    packed = _message(1, _TYPE.encode()) + _message(2, signatures)
    entry = _message(1, _SIGNATURES.encode()) + _message(2, packed)
    return _message(1, ModelSpec(model.name, model.version).encode()) + _message(2, entry)


def _message(number: int, body: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + encode_varint(len(body)) + body
