"""A model in TensorFlow Serving, over REST or gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from xee_tf.connector import Signature
from xee_tf.errors import MissingModelError, ModelError
from xee_tf.remote.addresses import GrpcTarget, check_grpc_target
from xee_tf.remote.connector import Ask, RemoteConnector
from xee_tf.remote.payloads import PREDICT
from xee_tf.remote.serving_metadata import (
    GET_METADATA,
    metadata_request,
    signature_of_json,
    signature_of_message,
)

__all__ = ["TFServingConnector"]


@dataclass(frozen=True, kw_only=True, repr=False)
class TFServingConnector(RemoteConnector):
    """A model in TensorFlow Serving; ``payload.served_model`` has its name, version and signature.

    Parameters
    ----------
    url : str
        As `check_url` or `str` of `check_grpc_target` gives it.
    """

    url: str

    def __str__(self) -> str:
        spec = self.payload.served_model
        which = ""
        if spec.version is not None:
            which = f"version {spec.version} of "
        elif spec.label is not None:
            which = f"version {spec.label!r} of "
        signature = f", signature {spec.signature_name!r}" if spec.signature_name else ""
        return f"TensorFlow Serving {self.url}{signature}, {which}model {spec.name!r}"

    @property
    def grpc_target(self) -> GrpcTarget | None:
        """See `RemoteConnector`."""
        return check_grpc_target(self.url) if self.payload.is_grpc else None

    @property
    def address(self) -> str:
        """See `RemoteConnector`."""
        return PREDICT if self.payload.is_grpc else f"{self._resource}:predict"

    @property
    def _resource(self) -> str:
        spec = self.payload.served_model
        path = f"{self.url}/v1/models/{quote(spec.name, safe='')}"
        if spec.version is not None:
            return f"{path}/versions/{spec.version}"
        return path if spec.label is None else f"{path}/labels/{quote(spec.label, safe='')}"

    def ask_signature(self, ask: Ask) -> Signature:
        """From the server's metadata; those that have none tell nothing.

        Raises
        ------
        MissingModelError
            If the server has no such model.
        ModelError
            If it has no such signature, does not answer, or takes other tensors than are sent.
        """
        spec = self.payload.served_model
        if self.payload.is_grpc:
            response, read = ask(GET_METADATA, metadata_request(spec)), signature_of_message
        else:
            response, read = ask(f"{self._resource}/metadata", None), signature_of_json
        if not response.ok:
            # "Not found" is about the model if it names it, else about the address.
            is_missing = response.code == 404 and spec.name in response.message
            if response.code in (404, 405, 501) and not is_missing:
                return Signature()
            error = MissingModelError if is_missing else ModelError
            raise error(self.failure(response))
        found = read(response.body, spec.signature_name, str(self))
        return self.payload.batch_signature(found, str(self))
