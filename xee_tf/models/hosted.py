"""Models on servers: the options that say how bytes go there, and the connectors made of them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xee_tf.errors import OptionError
from xee_tf.models.options import EE_NAMES, MODEL_SPELLING, ModelOptions, read_options
from xee_tf.options import one_of
from xee_tf.remote.credentials import Credentials, check_credentials

if TYPE_CHECKING:
    from xee_tf.remote.connector import Flow, RemoteConnector
    from xee_tf.remote.payloads.payload import Payload
    from xee_tf.remote.tf_serving import Transport
    from xee_tf.remote.vertex_ai import Route

__all__ = [
    "EE_HOSTED_NAMES",
    "HOSTED_SPELLING",
    "HostedOptions",
    "ai_platform_connector",
    "split_options",
    "tf_serving_connector",
    "vertex_ai_connector",
]

#: Earth Engine's names of what says where a hosted model is and how bytes go there, and ours.
EE_HOSTED_NAMES = {
    "endpoint": "endpoint",
    "projectName": "project_id",
    "projectId": "project_id",
    "modelName": "model_name",
    "version": "version",
    "region": "region",
    "maxPayloadBytes": "max_payload_bytes",
    "payloadFormat": "payload_format",
}

HOSTED_SPELLING = replace(MODEL_SPELLING, aliases=EE_NAMES | EE_HOSTED_NAMES)

_FLOW = ("max_payload_bytes", "max_concurrency", "timeout", "deadline", "max_response_bytes")
_HOSTED = (
    *_FLOW,
    "payload_format",
    "b64",
    "numbers_as_strings",
    "credentials",
    "project_id",
    "model_name",
)


class HostedOptions(ModelOptions, total=False):
    """The options of models on servers beside those of `Model`.

    Attributes
    ----------
    payload_format : str
        One of Earth Engine's: SERIALIZED_TF_TENSORS, RAW_JSON, ND_ARRAYS, GRPC_TF_TENSORS,
        GRPC_SERIALIZED_TF_TENSORS, GRPC_TF_EXAMPLES.
    b64 : bool
        Of serialised tensors: the model takes TensorProtos, and ``{"b64": ...}`` is sent, which the server
        decodes. Default: the model decodes URL-safe base64 itself, as `prepare_model` makes it.
    numbers_as_strings : bool
        Of RAW_JSON: as Earth Engine writes numbers. TensorFlow Serving does not take them so.
    max_payload_bytes : int
        Of a request, encoded. Default: 1,500,000, as in Earth Engine.
    max_concurrency : int
        Requests on their way at one time, over all workers of a cluster together. Default: 8. There are fewer
        for a while when the server says that it is busy (429).
    timeout, deadline : float
        Seconds that one request may take (60), and with all its repetitions (300). Repeated are those that
        were not answered, and those answered by 408, 429, 502, 503 or 504.
    max_response_bytes : int
        Larger answers are refused. Default: 256 MiB.
    credentials : {"google"} or None
        "google": application default credentials, looked for in each process that predicts.
    """

    payload_format: str | None
    b64: bool | None
    numbers_as_strings: bool | None
    max_payload_bytes: int | None
    max_concurrency: int | None
    timeout: float | None
    deadline: float | None
    max_response_bytes: int | None
    credentials: Credentials


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the way to a server, and those of the model.

    Examples
    --------
    >>> split_options({"max_payload_bytes": 5242880, "input_tile_size": [1, 1]})
    ({'max_payload_bytes': 5242880}, {'input_tile_size': [1, 1]})
    """
    model = {name: value for name, value in options.items() if name not in _HOSTED}
    hosted = {name: value for name, value in options.items() if name in _HOSTED}
    return {n: v for n, v in hosted.items() if v is not None or n == "credentials"}, model


def tf_serving_connector(
    url: str,
    model: str,
    version: int | None,
    label: str | None,
    signature_name: str | None,
    transport: Transport,
    options: Mapping[str, Any],
) -> tuple[RemoteConnector, dict[str, Any]]:
    """The connector of `Model.from_tf_serving`, and the options of the model."""
    from xee_tf.remote.addresses import check_grpc_target, check_url
    from xee_tf.remote.payloads.predict_messages import ModelSpec
    from xee_tf.remote.tf_serving import TFServingConnector

    hosted, rest = split_options(options)
    one_of("transport", transport, ("rest", "grpc"))
    if not model or not isinstance(model, str):
        raise OptionError(f"model must be the name that the server knows it by; got {model!r}.")
    if version is not None and label is not None:
        raise OptionError(f"version={version} and label={label!r} cannot both say which version is meant.")
    is_grpc = transport == "grpc"
    where = str(check_grpc_target(url)) if is_grpc else check_url(url)
    spec = ModelSpec(model, _version(version), label, signature_name or "")
    payload = _payload(hosted, "GRPC_TF_TENSORS" if is_grpc else "RAW_JSON", spec, as_strings=False)
    if payload.is_grpc != is_grpc:
        raise OptionError(f"payload_format={payload.format!r} does not go over transport={transport!r}.")
    credentials = check_credentials(hosted.pop("credentials", None), where)
    flow = _flow(hosted, rest)
    connector = TFServingConnector(
        payload=payload, flow=flow, credentials=credentials, url=where, transport=transport
    )
    return connector, rest


def vertex_ai_connector(
    endpoint: str,
    base_url: str | None,
    route: Route | None,
    signature_name: str | None,
    model_name: str,
    options: Mapping[str, Any],
) -> tuple[RemoteConnector, dict[str, Any]]:
    """The connector of `Model.from_vertex_ai`, and the options of the model."""
    from xee_tf.remote.addresses import check_url
    from xee_tf.remote.payloads.predict_messages import ModelSpec
    from xee_tf.remote.vertex_ai import VertexAIConnector, check_endpoint, shared_url

    hosted, rest = split_options(options)
    check_endpoint(endpoint)
    where = shared_url(endpoint) if base_url is None else check_url(base_url, "base_url")
    spec = ModelSpec(model_name, None, None, signature_name or "")
    payload = _payload(hosted, "SERIALIZED_TF_TENSORS", spec, as_strings=True)
    if route is None:
        route = "grpc" if payload.is_grpc else "rawPredict" if signature_name else "predict"
    one_of("route", route, ("predict", "rawPredict", "grpc"))
    if (route == "predict" and payload.is_grpc) or (route == "grpc" and not payload.is_grpc):
        raise OptionError(f"payload_format={payload.format!r} does not go by route={route!r}.")
    if route == "predict" and signature_name:
        raise OptionError(
            f"Vertex AI's predict knows only the default signature, not {signature_name!r}: use "
            "route='rawPredict'."
        )
    credentials = check_credentials(hosted.pop("credentials", "google"), where)
    flow = _flow(hosted, rest)
    connector = VertexAIConnector(
        payload=payload, flow=flow, credentials=credentials, endpoint=endpoint, base_url=where, route=route
    )
    return connector, rest


def ai_platform_connector(
    project_id: str | None,
    model_name: str | None,
    version: str | None,
    region: str,
    base_url: str | None,
    options: Mapping[str, Any],
) -> tuple[RemoteConnector, dict[str, Any]]:
    """The connector of `Model.from_ai_platform_predictor`, and the options of the model."""
    from xee_tf.remote.addresses import check_url
    from xee_tf.remote.ai_platform import AIPlatformConnector, check_live_use, check_part, check_region
    from xee_tf.remote.payloads.predict_messages import ANY_MODEL

    hosted, rest = split_options(options)
    project, model = check_part(project_id, "project_id"), check_part(model_name, "model_name")
    if version is not None:
        check_part(version, "version")
    check_region(region)
    if base_url is None:
        check_live_use(region)
    where = check_url(base_url or "", "base_url")
    payload = _payload(hosted, "SERIALIZED_TF_TENSORS", ANY_MODEL, as_strings=True)
    if payload.is_grpc:
        raise OptionError(f"AI Platform takes JSON only; payload_format is {payload.format!r}.")
    credentials = check_credentials(hosted.pop("credentials", None), where)
    flow = _flow(hosted, rest)
    connector = AIPlatformConnector(
        payload=payload,
        flow=flow,
        credentials=credentials,
        base_url=where,
        project=project,
        model=model,
        model_version=version,
    )
    return connector, rest


def _payload(hosted: dict[str, Any], default: str, spec: Any, *, as_strings: bool) -> Payload:
    from xee_tf.remote.payloads.formats import payload_of

    chosen = hosted.pop("payload_format", default)
    flags = {"b64": False, "numbers_as_strings": as_strings}
    for name in flags:
        flags[name] = hosted.pop(name, flags[name])
        if flags[name] is not True and flags[name] is not False:
            raise OptionError(f"{name} must be True or False; got {flags[name]!r}.")
    return payload_of(
        chosen,
        model_decodes=not flags["b64"],
        numbers_as_strings=flags["numbers_as_strings"],
        model_spec=spec,
    )


def _flow(hosted: dict[str, Any], rest: Mapping[str, Any]) -> Flow:
    """The flow; what is left of the options then is known nowhere."""
    from xee_tf.remote.connector import Flow

    given = {name: hosted.pop(name) for name in _FLOW if name in hosted}
    if hosted:
        raise OptionError(f"This model on a server has no option {', '.join(map(repr, hosted))}.")
    own = read_options({"output_multiplier": rest.get("output_multiplier")})
    return Flow(**own, **given)


def _version(value: Any) -> int | None:
    if value is None:
        return None
    try:
        number = int(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise OptionError(
            f"version must be the number of a version; got {value!r}. Names are labels: label=..."
        )
    return number
