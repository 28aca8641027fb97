"""Encode the signatures and the state of models like TensorFlow Serving, as JSON and protobuf messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from xee_tf.errors import RecordError
from xee_tf.extras import extra
from xee_tf.remote import SIGNATURES
from xee_tf.remote.payloads import ServedModel
from xee_tf.serving.models import ModelVersion
from xee_tf.wire import bodies, encode_field, text, text_field

__all__ = [
    "decode_metadata_request",
    "encode_metadata_response",
    "metadata_json",
    "status_json",
]

_TYPE = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


def status_json(versions: Iterable[ModelVersion]) -> bytes:
    """Return the response to ``GET /v1/models/NAME``, where all versions are available."""
    ready = {"error_code": "OK", "error_message": ""}
    states = [{"version": str(each.version), "state": "AVAILABLE", "status": ready} for each in versions]
    return json.dumps({"model_version_status": states}).encode()


def metadata_json(model: ModelVersion) -> bytes:
    """Return the response to ``GET /v1/models/NAME/metadata``."""
    with extra("serve", "A model server"):
        from google.protobuf.json_format import MessageToDict

    signatures: dict[str, Any] = {
        name: MessageToDict(
            definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, definition in model.signature_defs.items()
    }
    spec = {"name": model.name, "signature_name": "", "version": str(model.version)}
    return json.dumps(
        {"model_spec": spec, "metadata": {SIGNATURES: {SIGNATURES: signatures}}}, indent=1
    ).encode()


def decode_metadata_request(data: bytes) -> ServedModel:
    """Decode the model of a GetModelMetadataRequest."""
    names = [text(body) for body in bodies(data, 2)]
    if not names:
        raise RecordError("GetModelMetadataRequest must specify at least one metadata_field")
    for name in names:
        if name != SIGNATURES:
            raise RecordError(f"Metadata field {name} is not supported")
    return ServedModel.from_field(data, 1)


def encode_metadata_response(model: ModelVersion) -> bytes:
    """Encode ``GetModelMetadataResponse{model_spec = 1, map<string, Any> metadata = 2}``."""
    signatures = b"".join(
        encode_field(1, text_field(1, name) + encode_field(2, definition.SerializeToString()))
        for name, definition in model.signature_defs.items()
    )
    packed = text_field(1, _TYPE) + encode_field(2, signatures)
    entry = text_field(1, SIGNATURES) + encode_field(2, packed)
    return ServedModel(model.name, model.version).field(1) + encode_field(2, entry)
