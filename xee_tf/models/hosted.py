"""Models on servers: the options of how batches are sent there, and the connectors made from them."""

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
"""How TensorFlow Serving is asked."""

_RETRIES = "failed requests are retried until `deadline` seconds have passed; set deadline=... instead"

HOSTED_SPELLING = replace(
    MODEL_SPELLING,
    aliases={"projectName": "project_id"},
    replaced={**MODEL_SPELLING.replaced, "max_retries": _RETRIES, "retries": _RETRIES},
)
"""How the options of models on servers are written: ``ee.Model`` and ours."""


class HostedKeywords(ModelKeywords, total=False):
    """What users write for the options of a model on a server; `HostedOptions` describes each one."""

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
    """The options of models on servers beside those of `xee_tf.Model`: those of `Flow`, and these.

    Parameters
    ----------
    payload_format : str
        One of Earth Engine's: SERIALIZED_TF_TENSORS, RAW_JSON, ND_ARRAYS, GRPC_TF_TENSORS,
        GRPC_SERIALIZED_TF_TENSORS, GRPC_TF_EXAMPLES. Default: depends on the server.
    b64 : bool
        Of serialised tensors: the model takes TensorProtos, and ``{"b64": ...}`` is sent, which the server
        decodes. Default: the model decodes URL-safe base64 itself, as `prepare_model` makes it.
    numbers_as_strings : bool
        Of RAW_JSON: as Earth Engine writes numbers. TensorFlow Serving does not take them so, and gets plain
        numbers by default.
    credentials : {"google"} or None
        "google": application default credentials, looked for in each process that predicts. Default: "google"
        for Vertex AI, else None.

    See Also
    --------
    xee_tf.remote.connector.Flow : How much is sent at a time, and for how long it is tried.
    """

    _keywords: ClassVar[type] = HostedKeywords
    _none_is_default: ClassVar[bool] = True

    payload_format: PayloadFormat | None = option(None, lambda value, name: payload_format(value))
    b64: bool = option(False, flag)
    numbers_as_strings: bool | None = option(None, flag)
    credentials: Credentials | EllipsisType = ...

    def flow(self) -> Flow:
        """The flow alone, which a connector holds."""
        return Flow(**{each.name: getattr(self, each.name) for each in fields(Flow)})

    def payload(self, default: PayloadFormat, spec: ServedModel, *, as_strings: bool) -> Payload:
        """How batches are written; `default` and `as_strings` are those of the server."""
        return create_payload(
            self.payload_format or default,
            model_decodes=not self.b64,
            numbers_as_strings=as_strings if self.numbers_as_strings is None else self.numbers_as_strings,
            served_model=spec,
        )

    def credentials_for(self, url: str, default: Credentials = None) -> Credentials:
        """The credentials that are sent to an address; `default` is that of the server."""
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
    """The connector of `Model.from_tf_serving`."""
    one_of("transport", transport, get_args(Transport))
    if not model or not isinstance(model, str):
        raise OptionError(f"model must be the name that the server knows it by; got {model!r}.")
    if version is not None and label is not None:
        raise OptionError(f"version={version} and label={label!r} cannot both say which version is meant.")
    is_grpc = transport == "grpc"
    where = str(check_grpc_target(url)) if is_grpc else check_url(url)
    spec = ServedModel(model, _version(version), label, signature_name or "")
    payload = options.payload("GRPC_TF_TENSORS" if is_grpc else "RAW_JSON", spec, as_strings=False)
    if payload.is_grpc != is_grpc:
        raise OptionError(f"payload_format={payload.format!r} does not go over transport={transport!r}.")
    return TFServingConnector(
        payload=payload,
        flow=options.flow(),
        credentials=options.credentials_for(where),
        url=where,
    )


def vertex_ai_connector(
    endpoint: str,
    base_url: str | None,
    route: Route | None,
    signature_name: str | None,
    model_name: str,
    options: HostedOptions,
) -> VertexAIConnector:
    """The connector of `Model.from_vertex_ai`."""
    check_endpoint(endpoint)
    where = shared_url(endpoint) if base_url is None else check_url(base_url, "base_url")
    spec = ServedModel(model_name, None, None, signature_name or "")
    payload = options.payload("SERIALIZED_TF_TENSORS", spec, as_strings=True)
    if route is None:
        route = "grpc" if payload.is_grpc else "rawPredict" if signature_name else "predict"
    one_of("route", route, get_args(Route))
    if (route == "predict" and payload.is_grpc) or (route == "grpc" and not payload.is_grpc):
        raise OptionError(f"payload_format={payload.format!r} does not go by route={route!r}.")
    if route == "predict" and signature_name:
        raise OptionError(
            f"Vertex AI's predict knows only the default signature, not {signature_name!r}: use "
            "route='rawPredict'."
        )
    return VertexAIConnector(
        payload=payload,
        flow=options.flow(),
        credentials=options.credentials_for(where, "google"),
        endpoint=endpoint,
        base_url=where,
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
    """The connector of `Model.from_ai_platform_predictor`."""
    project, model = _check_part(project_id, "project_id"), _check_part(model_name, "model_name")
    if version is not None:
        _check_part(version, "version")
    if region == "global":
        raise OptionError(
            "region='global' is no place where a model runs: AI Platform's global address only served models "
            "on its oldest machines. Say the region that the model was deployed in, such as 'us-central1'."
        )
    _check_part(region, "region")
    if base_url is None:
        raise OptionError(
            "Google's AI Platform Prediction was discontinued on January 31, 2025: "
            f"https://{region}-ml.googleapis.com answers no predictions. Deploy the model to Vertex AI and "
            "use Model.from_vertex_ai(endpoint); for another server with AI Platform's addresses, say its "
            "base_url."
        )
    where = check_url(base_url, "base_url")
    payload = options.payload("SERIALIZED_TF_TENSORS", ANY_MODEL, as_strings=True)
    if payload.is_grpc:
        raise OptionError(f"AI Platform takes JSON only; payload_format is {payload.format!r}.")
    return AIPlatformConnector(
        payload=payload,
        flow=options.flow(),
        credentials=options.credentials_for(where),
        base_url=where,
        project=project,
        model=model,
        model_version=version,
    )


def _check_part(value: object, name: str) -> str:
    """A name that becomes a part of an address."""
    if not isinstance(value, str) or re.fullmatch(r"[\w.:-]+", value, re.ASCII) is None:
        raise OptionError(f"{name} must be a name of letters, digits, '-', '_', '.' and ':'; got {value!r}.")
    return value


def _version(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise OptionError(
            f"version must be the number of a version; got {value!r}. Names are labels: label=..."
        )
    return integer(0)(int(value) if isinstance(value, str) else value, "version")
