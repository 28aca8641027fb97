"""Models in files and on servers, as commands name them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import xarray as xr

import xee_tf
from xee_tf.cli.options import parse_names, select_bands
from xee_tf.errors import OptionError
from xee_tf.models import model_kind

__all__ = ["declare_classes", "model_at", "model_options"]

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


def model_options(
    image: xr.Dataset,
    *,
    bands: Sequence[str] | None,
    array_dims: Sequence[str] | None,
    output_bands: Sequence[str] | None,
    class_map: Sequence[str] | None,
    **options: Any,
) -> dict[str, Any]:
    """Return the options of a model that predicts an image, as its constructors take them.

    Parameters
    ----------
    image : Dataset
        The image.
    bands, array_dims, output_bands, class_map : sequence of str or None
        Values of options of a command, with names that are separated by commas.
    **options
        Options that need no conversion.

    Raises
    ------
    OptionError
        If the image has no such band, or options exclude each other.
    """
    found = {
        "bands": [str(name) for name in select_bands(image, bands)] if bands else None,
        "array_dims": parse_names(array_dims, image.dims),
        **options,
    }
    if outputs := parse_names(output_bands):
        types = {name: kind or None for name, _, kind in (output.partition("=") for output in outputs)}
        found["output_bands"] = {name: {"type": kind} for name, kind in types.items()}
    if classes := parse_names(class_map):
        if outputs:
            raise OptionError("output_bands and class_map exclude each other: pass one of them.")
        found["output_bands"] = {"class": declare_classes(classes)}
    return found


def declare_classes(texts: Sequence[str]) -> dict[str, Any]:
    """Return the declaration of a map of classes, of which all have values or none, and colors or none.

    Examples
    --------
    >>> declare_classes(["1:forest", "5:water"])
    {'argmax': ['forest', 'water'], 'colors': None, 'values': [1, 5]}
    """
    parts = [re.fullmatch("(?:(-?[0-9]+):)?(.*?)(?:=([^=]*))?", text) for text in texts]
    values, names, colors = zip(*(part.groups() for part in parts if part), strict=True)
    for what, given, example in (("color", colors, "#2f7d4f"), ("value", values, "1")):
        if any(each is not None for each in given) and None in given:
            name = names[given.index(None)]
            raise OptionError(
                f"class_map has no {what} for {name!r}: give each class one, such as {example}, or none of "
                "them."
            )
    found: dict[str, Any] = {"argmax": list(names), "colors": None if None in colors else list(colors)}
    return found if None in values else found | {"values": [int(value) for value in values]}
