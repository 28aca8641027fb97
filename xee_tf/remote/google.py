"""Models on Google's services: endpoints of Vertex AI, and AI Platform Prediction.

AI Platform Prediction was discontinued, but other servers and old scripts still use its URLs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from xee_tf.connector import Signature
from xee_tf.errors import OptionError, RecordError
from xee_tf.remote.addresses import GrpcTarget, check_grpc_target
from xee_tf.remote.connector import RemoteConnector
from xee_tf.remote.payloads import PREDICT
from xee_tf.remote.responses import Response
from xee_tf.wire import bodies, field_head, text_field

__all__ = [
    "DIRECT_RAW_PREDICT",
    "AIPlatformConnector",
    "Route",
    "VertexAIConnector",
    "check_endpoint",
    "shared_url",
]

Route = Literal["predict", "rawPredict", "grpc"]

DIRECT_RAW_PREDICT = "/google.cloud.aiplatform.v1.PredictionService/DirectRawPredict"
"""The gRPC method that passes a request on to the model's own server."""

_NAME = re.compile(r"projects/([^/\s]+)/locations/([a-z0-9-]+)/endpoints/([^/\s:?#]+)")


def check_endpoint(endpoint: Any) -> str:
    """Return `endpoint` if it is the full name of an endpoint."""
    if not isinstance(endpoint, str) or _NAME.fullmatch(endpoint) is None:
        raise OptionError(
            "endpoint must be the full name of an endpoint, as in Earth Engine: "
            f"'projects/PROJECT/locations/REGION/endpoints/ID'; got {endpoint!r}."
        )
    return endpoint


def shared_url(endpoint: str) -> str:
    """Return the URL that all endpoints of a region share.

    Examples
    --------
    >>> shared_url("projects/forest/locations/europe-west4/endpoints/123")
    'https://europe-west4-aiplatform.googleapis.com'
    """
    return f"https://{endpoint.split('/')[3]}-aiplatform.googleapis.com"


class GoogleConnector(RemoteConnector):
    """A model on a service of Google, which does not describe its inputs and outputs."""

    permission: ClassVar[str]
    """The permission that an account needs to request predictions."""

    role: ClassVar[str]
    """The role that grants the permission."""

    project: str
    """The project that the model belongs to."""

    def signature(self) -> Signature:
        """Return an empty signature, without a request: predictions can be built without credentials."""
        return Signature()

    def known_signature(self) -> Signature:
        """Return the same: the service has no other."""
        return Signature()

    @property
    def permission_advice(self) -> str:
        """See `RemoteConnector`."""
        return (
            "The account of the default credentials on this machine needs the permission "
            f"{self.permission} in the project {self.project!r}: grant it the role {self.role}."
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class VertexAIConnector(GoogleConnector):
    """A model on an endpoint of Vertex AI.

    Parameters
    ----------
    endpoint : str
        Full name of the endpoint.
    base_url : str
        URL from `shared_url`, or of a dedicated or private endpoint.
    route : {"predict", "rawPredict", "grpc"}
        ``predict`` accepts JSON for the default signature of the model; ``rawPredict`` passes the body on to
        the model's own server; ``grpc`` calls DirectRawPredict with a PredictRequest of TensorFlow Serving.
    """

    endpoint: str
    base_url: str
    route: Route

    permission = "aiplatform.endpoints.predict"
    role = "Vertex AI User (roles/aiplatform.user)"
    anonymous_advice = "Vertex AI requires authentication: remove credentials=None."

    def __str__(self) -> str:
        where = "" if self.base_url == shared_url(self.endpoint) else f" at {self.base_url}"
        return f"Vertex AI{where}, {self.endpoint}"

    @property
    def grpc_target(self) -> GrpcTarget | None:
        """See `RemoteConnector`."""
        if self.route != "grpc":
            return None
        parts = urlsplit(self.base_url)
        target = check_grpc_target(f"{parts.scheme}://{parts.netloc}", "base_url", default_port=80)
        # Dedicated endpoints read the endpoint's ID from this header.
        return replace(target, headers=(("x-vertex-ai-endpoint-id", self.endpoint.rpartition("/")[2]),))

    @property
    def address(self) -> str:
        """See `RemoteConnector`."""
        if self.route == "grpc":
            return DIRECT_RAW_PREDICT
        return f"{self.base_url}/v1/{self.endpoint}:{self.route}"

    def wrap(self, body: bytes) -> bytes:
        """Over gRPC, wrap it in a ``DirectRawPredictRequest{endpoint = 1, method_name = 2, input = 3}``."""
        if self.route != "grpc":
            return body
        head = text_field(1, self.endpoint) + text_field(2, PREDICT.lstrip("/")) + field_head(3, len(body))
        return b"".join((head, body))

    def unwrap(self, body: bytes) -> bytes:
        """Over gRPC, unwrap it from a ``DirectRawPredictResponse{output = 1}``."""
        if self.route != "grpc":
            return body
        for output in bodies(body, 1):
            return bytes(output)
        raise RecordError("The DirectRawPredictResponse has no output.")

    def advice(self, response: Response) -> str:
        """See `RemoteConnector`."""
        if response.code not in (401, 403) and "dedicated" in response.message.lower():
            return "Pass the endpoint's own URL: base_url='https://' + its dedicatedEndpointDns."
        return super().advice(response)

    @property
    def project(self) -> str:  # type: ignore[override]
        """See `GoogleConnector`."""
        return self.endpoint.split("/")[1]


@dataclass(frozen=True, kw_only=True, repr=False)
class AIPlatformConnector(GoogleConnector):
    """A model on a server with the URLs of AI Platform; by default, the default version of the model."""

    base_url: str
    project: str
    model: str
    model_version: str | None = None

    permission = "ml.versions.predict"
    role = "AI Platform Model User (roles/ml.modelUser)"

    def __str__(self) -> str:
        return f"AI Platform {self.base_url}, {self._resource}"

    @property
    def address(self) -> str:
        """See `RemoteConnector`."""
        return f"{self.base_url}/v1/{self._resource}:predict"

    @property
    def _resource(self) -> str:
        version = "" if self.model_version is None else f"/versions/{self.model_version}"
        return f"projects/{self.project}/models/{self.model}{version}"
