"""Models in files and on servers, as commands name them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import xee_tf
from xee_tf.errors import OptionError
from xee_tf.models import model_kind

__all__ = ["model_at"]

_LOADERS: dict[str | None, Any] = {
    "keras": xee_tf.Model.from_keras,
    "onnx": xee_tf.Model.from_onnx,
    "mlm": xee_tf.Model.from_mlm,
}

_VERSION = r"(?:/versions/(?P<version>[^/:]+)|/labels/(?P<label>[^/:]+))?"
_ENDPOINT = r"(?P<endpoint>projects/[^/]+/locations/[^/]+/endpoints/[^/:]+)"

_SERVERS: tuple[tuple[str, Any, dict[str, Any]], ...] = (
    (rf"{_ENDPOINT}(?::(?P<route>predict|rawPredict))?", xee_tf.Model.from_vertex_ai, {}),
    (
        rf"(?P<base_url>https?://.+)/v1/{_ENDPOINT}(?::(?P<route>predict|rawPredict))?",
        xee_tf.Model.from_vertex_ai,
        {},
    ),
    (
        r"(?P<base_url>https?://.+)/v1/projects/(?P<project_id>[^/]+)/models/(?P<model_name>[^/:]+)"
        r"(?:/versions/(?P<version>[^/:]+))?(?::predict)?",
        xee_tf.Model.from_ai_platform_predictor,
        {},
    ),
    (
        rf"(?P<url>https?://.+)/v1/models/(?P<model>[^/:]+){_VERSION}(?::predict)?",
        xee_tf.Model.from_tf_serving,
        {"transport": "rest"},
    ),
    (
        rf"(?P<url>grpcs?://[^/]+)/(?P<model>[^/:]+){_VERSION}",
        xee_tf.Model.from_tf_serving,
        {"transport": "grpc"},
    ),
)
"""Addresses of hosted models: a pattern, whose groups are options of a constructor, and other options."""


def model_at(
    address: str, *, signature: str | None = None, hosted: dict[str, Any] | None = None, **options: Any
) -> xee_tf.Model:
    """Create a model from a path or an address: on a server, by its suffix a file, or else a SavedModel.

    Parameters
    ----------
    address : str
        The path or URL of a file or folder, the address of a model on a server, or the resource name of an
        endpoint of Vertex AI.
    signature : str, optional
        The signature that is called.
    hosted : dict, optional
        Options that only models on servers have.
    **options
        Other options of the model.

    Examples
    --------
    >>> model_at("models/landcover.h5").connector.files.location.name
    'landcover.h5'
    >>> model_at("http://models:8501/v1/models/landcover/versions/3").connector.address
    'http://models:8501/v1/models/landcover/versions/3:predict'
    """
    model: xee_tf.Model
    given = hosted or {}
    for pattern, constructor, fixed in _SERVERS:
        if (match := re.fullmatch(pattern, address.rstrip("/"))) is None:
            continue
        place: dict[str, Any] = {name: value for name, value in match.groupdict().items() if value}
        if signature is not None:
            if constructor == xee_tf.Model.from_ai_platform_predictor:
                raise OptionError("--signature is not supported by AI Platform: omit it.")
            place["signature_name"] = signature
        model = constructor(**{**place, **fixed, **given}, **options)
        return model
    parts = urlsplit(address)
    if parts.scheme in ("grpc", "grpcs") or (parts.scheme in ("http", "https") and not parts.path.strip("/")):
        path = "/NAME" if parts.scheme.startswith("grpc") else "/v1/models/NAME"
        server = f"{parts.scheme}://{parts.netloc}"
        raise OptionError(f"{address} is the address of a server: add the name of a model, {server}{path}.")
    if given:
        flag = "--" + next(iter(given)).replace("_", "-")
        raise OptionError(f"{flag} is only for models on servers, and {address} is none: omit it.")
    kind = model_kind(address)
    if signature is not None and kind in _LOADERS:
        raise OptionError(f"--signature is for SavedModels and models on servers: omit it for {address}.")
    known = {} if signature is None else {"signature": signature}
    model = _LOADERS.get(kind, xee_tf.Model.from_saved_model)(address, **known, **options)
    return model
