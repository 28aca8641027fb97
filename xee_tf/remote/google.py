"""Models behind Google's addresses: endpoints of Vertex AI, and AI Platform Prediction.

The latter was discontinued, but its addresses live on in other servers and in old scripts.
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
    "GoogleConnector",
    "Route",
    "VertexAIConnector",
    "check_endpoint",
    "shared_url",
]

Route = Literal["predict", "rawPredict", "grpc"]

DIRECT_RAW_PREDICT = "/google.cloud.aiplatform.v1.PredictionService/DirectRawPredict"
"""The method of gRPC."""

_NAME = re.compile(r"projects/([^/\s]+)/locations/([a-z0-9-]+)/endpoints/([^/\s:?#]+)")


def check_endpoint(endpoint: Any) -> str:
    """The full name of an endpoint, as it is given."""
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
    return f"https://{endpoint.split('/')[3]}-aiplatform.googleapis.com"


class GoogleConnector(RemoteConnector):
    """A model behind Google's addresses. Nothing is known of its inputs and outputs."""

    permission: ClassVar[str]
    """What an account needs."""

    role: ClassVar[str]
    """The role that gives it."""

    project: str
    """The project that the model belongs to."""

    def signature(self) -> Signature:
        """Nothing: there is nobody to ask, so that a prediction is built without credentials."""
        return Signature()

    @property
    def permission_advice(self) -> str:
        """See `RemoteConnector`."""
        return (
            "The account of Google's default credentials on this machine needs the permission "
            f"{self.permission} in the project {self.project!r}: its role {self.role}."
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class VertexAIConnector(GoogleConnector):
    """A model on an endpoint of Vertex AI.

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

    permission = "aiplatform.endpoints.predict"
    role = "Vertex AI User (roles/aiplatform.user)"
    anonymous_advice = "Vertex AI wants to know who asks: leave out credentials=None."

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
        # Dedicated endpoints find the endpoint by this header.
        return replace(target, headers=(("x-vertex-ai-endpoint-id", self.endpoint.rpartition("/")[2]),))

    @property
    def address(self) -> str:
        """See `RemoteConnector`."""
        if self.route == "grpc":
            return DIRECT_RAW_PREDICT
        return f"{self.base_url}/v1/{self.endpoint}:{self.route}"

    def wrap(self, body: bytes) -> bytes:
        """Over gRPC: ``DirectRawPredictRequest{endpoint = 1, method_name = 2, input = 3}``."""
        if self.route != "grpc":
            return body
        head = text_field(1, self.endpoint) + text_field(2, PREDICT.lstrip("/")) + field_head(3, len(body))
        return b"".join((head, body))

    def unwrap(self, body: bytes) -> bytes:
        """Over gRPC: ``DirectRawPredictResponse{output = 1}``."""
        if self.route != "grpc":
            return body
        for output in bodies(body, 1):
            return bytes(output)
        raise RecordError("The DirectRawPredictResponse has no output.")

    def advice(self, response: Response) -> str:
        """See `RemoteConnector`."""
        if response.code not in (401, 403) and "dedicated" in response.message.lower():
            return "Say the endpoint's own address: base_url='https://' + its dedicatedEndpointDns."
        return super().advice(response)

    @property
    def project(self) -> str:  # type: ignore[override]
        """See `GoogleConnector`."""
        return self.endpoint.split("/")[1]


@dataclass(frozen=True, kw_only=True, repr=False)
class AIPlatformConnector(GoogleConnector):
    """A model behind AI Platform's addresses; without a version the default one."""

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
