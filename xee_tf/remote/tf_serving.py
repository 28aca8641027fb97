"""A model in TensorFlow Serving, over REST or gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from xee_tf.connector import Signature
from xee_tf.errors import MissingModelError, ModelError
from xee_tf.remote.addresses import GrpcTarget, check_grpc_target
from xee_tf.remote.connector import Fetch, RemoteConnector
from xee_tf.remote.payloads import PREDICT
from xee_tf.remote.responses import WRONG_PROTOCOL, Response
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
        URL returned by `check_url`, or the text of the `GrpcTarget` returned by `check_grpc_target`.
    """

    url: str

    def __str__(self) -> str:
        spec = self.payload.served_model
        version = ""
        if spec.version is not None:
            version = f"version {spec.version} of "
        elif spec.label is not None:
            version = f"version {spec.label!r} of "
        signature = f", signature {spec.signature_name!r}" if spec.signature_name else ""
        return f"TensorFlow Serving {self.url}{signature}, {version}model {spec.name!r}"

    @property
    def grpc_target(self) -> GrpcTarget | None:
        """See `RemoteConnector`."""
        return check_grpc_target(self.url) if self.payload.is_grpc else None

    @property
    def address(self) -> str:
        """See `RemoteConnector`."""
        return PREDICT if self.payload.is_grpc else f"{self._resource}:predict"

    def advice(self, response: Response) -> str:
        """See `RemoteConnector`."""
        if response.code != WRONG_PROTOCOL:
            return super().advice(response)
        scheme, _, address = self.url.partition("://")
        if self.payload.is_grpc:
            http = f"http{'s' if scheme == 'grpcs' else ''}"
            return f"Pass transport='rest' and '{http}://{address}', or the port for gRPC, usually 8500."
        grpc = f"grpc{'s' if scheme == 'https' else ''}://{urlsplit(self.url).netloc}"
        return f"Pass transport='grpc' and {grpc!r}, or the port for REST, usually 8501."

    @property
    def _resource(self) -> str:
        spec = self.payload.served_model
        path = f"{self.url}/v1/models/{quote(spec.name, safe='')}"
        if spec.version is not None:
            return f"{path}/versions/{spec.version}"
        return path if spec.label is None else f"{path}/labels/{quote(spec.label, safe='')}"

    def fetch_signature(self, fetch: Fetch) -> Signature:
        """Fetch the signature from the metadata of the server; it is empty if the server has no metadata.

        Raises
        ------
        MissingModelError
            If the model is not found on the server.
        ModelError
            If the signature is not found, the server does not respond, or the model expects other tensors
            than the payload format sends.
        """
        spec = self.payload.served_model
        if self.payload.is_grpc:
            response, read = fetch(GET_METADATA, metadata_request(spec)), signature_of_message
        else:
            response, read = fetch(f"{self._resource}/metadata", None), signature_of_json
        if not response.ok:
            # 404 means that the model was not found if the message names it; otherwise that the URL was not.
            is_missing = response.code == 404 and spec.name in response.message
            if response.code in (404, 405, 501) and not is_missing:
                return Signature()
            error = MissingModelError if is_missing else ModelError
            raise error(self.failure(response))
        found = read(response.body, spec.signature_name, str(self))
        return self.payload.batch_signature(found, str(self))
