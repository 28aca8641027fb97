"""Models on servers: the options of their requests, and the connectors built from them."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from types import EllipsisType
from typing import Any, ClassVar, Literal, get_args

from xee_tf.errors import OptionError
from xee_tf.models.options import MODEL_SPELLING, ModelKeywords
from xee_tf.options import flag, integer, one_of, option
from xee_tf.remote import (
    AIPlatformConnector,
    Credentials,
    Flow,
    Route,
    TFServingConnector,
    VertexAIConnector,
    check_credentials,
    check_endpoint,
    check_grpc_target,
    check_url,
    shared_url,
)
from xee_tf.remote.payloads import (
    ANY_MODEL,
    Payload,
    PayloadFormat,
    ServedModel,
    create_payload,
    payload_format,
)

__all__ = [
    "HOSTED_SPELLING",
    "HostedKeywords",
    "HostedOptions",
    "Transport",
    "ai_platform_connector",
    "tf_serving_connector",
    "vertex_ai_connector",
]

Transport = Literal["rest", "grpc"]
"""The protocol of requests to TensorFlow Serving."""

_RETRIES = "failed requests are retried until `deadline` seconds have passed; set deadline=... instead"

HOSTED_SPELLING = replace(
    MODEL_SPELLING,
    aliases={"projectName": "project_id"},
    replaced={**MODEL_SPELLING.replaced, "max_retries": _RETRIES, "retries": _RETRIES},
)
"""The names of the options of models on servers, in ``ee.Model`` and here."""


class HostedKeywords(ModelKeywords, total=False):
    """Types of the options of a model on a server, as users pass them; see `HostedOptions`."""

    payload_format: str | None
    b64: bool | None
    numbers_as_strings: bool | None
    max_payload_bytes: int | None
    max_concurrency: int | None
    timeout: float | None
    deadline: float | None
    max_response_bytes: int | None
    credentials: Credentials


@dataclass(frozen=True, kw_only=True)
class HostedOptions(Flow):
    """The options of models on servers: those of `Flow`, and these.

    Parameters
    ----------
    payload_format : str, optional
        One of Earth Engine's formats: SERIALIZED_TF_TENSORS, RAW_JSON, ND_ARRAYS, GRPC_TF_TENSORS,
        GRPC_SERIALIZED_TF_TENSORS or GRPC_TF_EXAMPLES. Default: depends on the server.
    b64 : bool, default False
        For serialized tensors: the model takes TensorProtos, and ``{"b64": ...}`` is sent, which the server
        decodes. False: the model decodes URL-safe base64 itself, like those of `xee_tf.prepare_model`.
    numbers_as_strings : bool, optional
        For RAW_JSON: write numbers as strings, as Earth Engine does. Default: False for TensorFlow Serving,
        which does not accept them, otherwise True.
    credentials : {"google"} or None, optional
        "google": use Google's application default credentials of each process that predicts. Default:
        "google" for Vertex AI, otherwise None.

    See Also
    --------
    xee_tf.remote.connector.Flow : Size, number and time limits of requests.
    """

    _keywords: ClassVar[type] = HostedKeywords
    _none_is_default: ClassVar[bool] = True

    payload_format: PayloadFormat | None = option(None, lambda value, name: payload_format(value))
    b64: bool = option(False, flag)
    numbers_as_strings: bool | None = option(None, flag)
    credentials: Credentials | EllipsisType = ...

    def flow(self) -> Flow:
        """Return the options of `Flow`, which a connector contains."""
        return Flow(**{each.name: getattr(self, each.name) for each in fields(Flow)})

    def payload(self, default: PayloadFormat, spec: ServedModel, *, as_strings: bool) -> Payload:
        """Return the payload of requests; `default` and `as_strings` depend on the server."""
        return create_payload(
            self.payload_format or default,
            model_decodes=not self.b64,
            numbers_as_strings=as_strings if self.numbers_as_strings is None else self.numbers_as_strings,
            served_model=spec,
        )

    def credentials_for(self, url: str, default: Credentials = None) -> Credentials:
        """Return the credentials for requests to `url`; `default` depends on the server."""
        return check_credentials(default if self.credentials is ... else self.credentials, url)


def tf_serving_connector(
    url: str,
    model: str,
    version: int | None,
    label: str | None,
    signature_name: str | None,
    transport: Transport,
    options: HostedOptions,
) -> TFServingConnector:
    """Build the connector of `Model.from_tf_serving`."""
    one_of("transport", transport, get_args(Transport))
    if not model or not isinstance(model, str):
        raise OptionError(f"model must be the name of the model on the server; got {model!r}.")
    if version is not None and label is not None:
        raise OptionError(f"version={version} and label={label!r} cannot be combined: remove one of them.")
    is_grpc = transport == "grpc"
    address = str(check_grpc_target(url)) if is_grpc else check_url(url)
    spec = ServedModel(model, _version(version), label, signature_name or "")
    payload = options.payload("GRPC_TF_TENSORS" if is_grpc else "RAW_JSON", spec, as_strings=False)
    if payload.is_grpc != is_grpc:
        raise OptionError(f"payload_format={payload.format!r} cannot be used with transport={transport!r}.")
    return TFServingConnector(
        payload=payload,
        flow=options.flow(),
        credentials=options.credentials_for(address),
        url=address,
    )


def vertex_ai_connector(
    endpoint: str,
    base_url: str | None,
    route: Route | None,
    signature_name: str | None,
    model_name: str,
    options: HostedOptions,
) -> VertexAIConnector:
    """Build the connector of `Model.from_vertex_ai`."""
    check_endpoint(endpoint)
    address = shared_url(endpoint) if base_url is None else check_url(base_url, "base_url")
    spec = ServedModel(model_name, None, None, signature_name or "")
    payload = options.payload("SERIALIZED_TF_TENSORS", spec, as_strings=True)
    if route is None:
        route = "grpc" if payload.is_grpc else "rawPredict" if signature_name else "predict"
    one_of("route", route, get_args(Route))
    if (route == "predict" and payload.is_grpc) or (route == "grpc" and not payload.is_grpc):
        raise OptionError(f"payload_format={payload.format!r} cannot be used with route={route!r}.")
    if route == "predict" and signature_name:
        raise OptionError(
            "Vertex AI's predict only supports the default signature; got "
            f"signature_name={signature_name!r}. Use route='rawPredict'."
        )
    return VertexAIConnector(
        payload=payload,
        flow=options.flow(),
        credentials=options.credentials_for(address, "google"),
        endpoint=endpoint,
        base_url=address,
        route=route,
    )


def ai_platform_connector(
    project_id: str | None,
    model_name: str | None,
    version: str | None,
    region: str,
    base_url: str | None,
    options: HostedOptions,
) -> AIPlatformConnector:
    """Build the connector of `Model.from_ai_platform_predictor`."""
    project, model = _check_part(project_id, "project_id"), _check_part(model_name, "model_name")
    if version is not None:
        _check_part(version, "version")
    if region == "global":
        raise OptionError(
            "region must be the region that the model was deployed to, such as 'us-central1'; got 'global'. "
            "The global endpoint of AI Platform only served models on its oldest machine types."
        )
    _check_part(region, "region")
    if base_url is None:
        raise OptionError(
            "Google's AI Platform Prediction was discontinued on January 31, 2025: "
            f"https://{region}-ml.googleapis.com no longer returns predictions. Deploy the model to Vertex "
            "AI and use Model.from_vertex_ai(endpoint). For another server with the API of AI "
            "Platform, pass its URL as base_url."
        )
    address = check_url(base_url, "base_url")
    payload = options.payload("SERIALIZED_TF_TENSORS", ANY_MODEL, as_strings=True)
    if payload.is_grpc:
        raise OptionError(f"AI Platform only supports JSON; got payload_format={payload.format!r}.")
    return AIPlatformConnector(
        payload=payload,
        flow=options.flow(),
        credentials=options.credentials_for(address),
        base_url=address,
        project=project,
        model=model,
        model_version=version,
    )


def _check_part(value: object, name: str) -> str:
    """Check a name that becomes part of a URL."""
    if not isinstance(value, str) or re.fullmatch(r"[\w.:-]+", value, re.ASCII) is None:
        raise OptionError(f"{name} must be a name of letters, digits, '-', '_', '.' and ':'; got {value!r}.")
    return value


def _version(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise OptionError(
            f"version must be a version number; got {value!r}. For the name of a version, use label=..."
        )
    return integer(0)(int(value) if isinstance(value, str) else value, "version")
