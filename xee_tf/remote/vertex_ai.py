"""A model on an endpoint of Vertex AI: ``predict``, ``rawPredict``, or gRPC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from xee_tf.connector import Signature
from xee_tf.errors import OptionError, RecordError
from xee_tf.records.wire import encode_varint, read_fields
from xee_tf.remote.addresses import GrpcTarget, check_url
from xee_tf.remote.answers import Answer
from xee_tf.remote.connector import Client, RemoteConnector
from xee_tf.remote.credentials import open_credentials

__all__ = ["Route", "VertexAIConnector", "check_endpoint", "shared_url"]

Route = Literal["predict", "rawPredict", "grpc"]

_METHOD = "tensorflow.serving.PredictionService/Predict"
_NAME = re.compile(r"projects/([^/\s]+)/locations/([a-z0-9-]+)/endpoints/([^/\s:?#]+)")


def check_endpoint(endpoint: Any) -> str:
    """The full name of an endpoint.

    Raises
    ------
    OptionError
        If it is not one.

    Examples
    --------
    >>> check_endpoint("projects/forest/locations/europe-west4/endpoints/123")
    'projects/forest/locations/europe-west4/endpoints/123'
    """
    if not isinstance(endpoint, str) or _NAME.fullmatch(endpoint) is None:
        raise OptionError(
            "endpoint must be the full name of an endpoint, as Earth Engine has it: "
            f"'projects/PROJECT/locations/REGION/endpoints/ID'; got {endpoint!r}."
        )
    return endpoint


def shared_url(endpoint: str) -> str:
    """The address that the endpoints of a region share.

    Examples
    --------
    >>> shared_url("projects/forest/locations/europe-west4/endpoints/123")
    'https://europe-west4-aiplatform.googleapis.com'
    """
    return f"https://{check_endpoint(endpoint).split('/')[3]}-aiplatform.googleapis.com"


@dataclass(frozen=True, kw_only=True, repr=False)
class VertexAIConnector(RemoteConnector):
    """A model on an endpoint of Vertex AI. It tells nothing of its inputs and outputs.

    Parameters
    ----------
    endpoint : str
        Its full name.
    base_url : str
        `shared_url`, or that of a dedicated or private endpoint.
    route : {"predict", "rawPredict", "grpc"}
        ``predict`` takes JSON for the model's default signature; ``rawPredict`` hands the body on to the
        model's own server; gRPC is DirectRawPredict, with TensorFlow Serving's PredictRequest inside.
    """

    endpoint: str
    base_url: str
    route: Route

    def __str__(self) -> str:
        where = "" if self.base_url == shared_url(self.endpoint) else f" at {self.base_url}"
        return f"Vertex AI{where}, {self.endpoint}"

    def signature(self) -> Signature:
        """Nothing: there is nobody to ask, so that a prediction is built without credentials."""
        return Signature()

    def client(self) -> Client:
        """A session of HTTP, or a channel of gRPC."""
        credentials, most = open_credentials(self.credentials), self.flow.max_response_bytes
        if self.route == "grpc":
            from xee_tf.remote.grpc_client import GrpcClient

            parts = urlsplit(check_url(self.base_url, "base_url"))
            secure = parts.scheme == "https"
            target = GrpcTarget(
                parts.netloc if parts.port else f"{parts.netloc}:{443 if secure else 80}", secure
            )
            # Dedicated endpoints find the endpoint by this header.
            headers = (("x-vertex-ai-endpoint-id", self.endpoint.rpartition("/")[2]),)
            return GrpcClient(target, credentials, most, headers)
        from xee_tf.remote.http_client import HttpClient

        return HttpClient(credentials, self.flow.max_concurrency, most)

    @property
    def address(self) -> str:
        """See `RemoteConnector`."""
        if self.route == "grpc":
            return "/google.cloud.aiplatform.v1.PredictionService/DirectRawPredict"
        return f"{self.base_url}/v1/{self.endpoint}:{self.route}"

    def wrap(self, body: bytes) -> bytes:
        """Over gRPC: ``DirectRawPredictRequest{endpoint = 1, method_name = 2, input = 3}``."""
        if self.route != "grpc":
            return body
        head = b"".join(_head(number, len(text)) + text for number, text in self._fields)
        return b"".join((head, _head(3, len(body)), body))

    @property
    def _fields(self) -> tuple[tuple[int, bytes], ...]:
        return (1, self.endpoint.encode()), (2, _METHOD.encode())

    def unwrap(self, body: bytes) -> bytes:
        """Over gRPC: ``DirectRawPredictResponse{output = 1}``."""
        if self.route != "grpc":
            return body
        for number, wire, output in read_fields(memoryview(body)):
            if number == 1 and wire == 2:
                return bytes(output)
        raise RecordError("The DirectRawPredictResponse has no output.")

    def advice(self, answer: Answer) -> str:
        """See `RemoteConnector`."""
        project = self.endpoint.split("/")[1]
        if answer.code in (401, 403) and self.credentials is None:
            return "Vertex AI wants to know who asks: leave out credentials=None."
        if answer.code in (401, 403):
            return (
                "The account of Google's default credentials on this machine needs the permission "
                f"aiplatform.endpoints.predict in the project {project!r}: its role Vertex AI User "
                "(roles/aiplatform.user)."
            )
        if "dedicated" in answer.words.lower():
            return "Say the endpoint's own address: base_url='https://' + its dedicatedEndpointDns."
        return super().advice(answer)


def _head(number: int, size: int) -> bytes:
    return bytes((number << 3 | 2,)) + encode_varint(size)
