"""Describe everything that the values of a prediction depend on, to continue only the same prediction."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Hashable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import xarray as xr

from xee_tf.errors import shorten
from xee_tf.georef import GeoRef, band_nodata, read_georef
from xee_tf.identity import content_hash
from xee_tf.models import ModelSpec
from xee_tf.predict.image import Prediction

__all__ = ["Description", "describe_run", "explain_difference"]

Description = Mapping[str, Any]
"""A description in JSON's types."""

_PART_BYTES = 64 << 20  # an array is read and hashed in parts of this size
_UNKNOWN = "unknown"
# Version of the description. 1 (version 0.1.0) compared display texts; 2 did not include masks and
# georeferences; 3 used other names for types.
_FORMAT = 4
# Options of a prediction that affect values. Properties and the georeference are compared by value instead.
_OPTIONS = ("blend", "augment", "resampling", "output_grid")
# Fields of a model that do not affect the values of an image.
_WITHOUT_EFFECT = frozenset({"connector", "output_multiplier", "output_properties"})


def describe_run(spec: ModelSpec, prediction: Prediction) -> Description:
    """Describe everything that the values of a prediction depend on.

    Dask arrays are identified by their names, which are hashes of how they are computed; other arrays by
    their values.
    """
    caller, predicted = prediction.caller, prediction.dataset
    result_georef = _result_georef(predicted)
    description = {
        "format": _FORMAT,
        "model": {"name": str(spec.connector), "content": _content_of(spec.connector.content())},
        "model_options": {
            each.name: str(getattr(spec, each.name))
            for each in fields(spec)
            if each.name not in _WITHOUT_EFFECT
        },
        "options": {name: str(getattr(prediction.options, name)) for name in _OPTIONS},
        "properties": {
            name: _content_of(content_hash(value)) for name, value in sorted(caller.properties.items())
        },
        "image": {
            name: {
                "dtype": str(variable.dtype),
                "sizes": list(variable.sizes.items()),
                "inner": list(map(str, prediction.bands[name].dims)),
                "array": _array_name(variable),
                "nodata": repr(band_nodata(variable, name)),
            }
            for name, variable in prediction.variables.items()
        },
        "source": _grid(prediction.georef),
        "grid": _grid(result_georef),
        # Sizes and types that may come from the signature of the model.
        "calls": {
            "tiles": repr(caller.tiles),
            "inputs": {feed.input: repr(feed) for feed in caller.feeds},
            "outputs": {output.name: repr(output) for output in caller.outputs},
        },
        "outputs": {
            str(name): [
                str(band.dtype),
                list(band.sizes.items()),
                [list(sizes) for sizes in band.chunks or ()],
                repr(band.attrs.get("_FillValue")),
            ]
            for name, band in predicted.data_vars.items()
        },
        "coordinates": {
            str(dim): _content_of(content_hash(np.asarray(predicted.coords[dim].values)))
            for dim in predicted.dims
            if dim in predicted.coords and dim not in (result_georef.x_dim, result_georef.y_dim)
        },
    }
    in_json: Description = json.loads(json.dumps(description))
    return in_json


def explain_difference(stored: Any, current: Description) -> str:
    """Return why a store does not hold the current prediction, for an error; empty if it does."""
    if not isinstance(stored, Mapping) or stored.get("format") != _FORMAT:
        return "it was written by another version of xee_tf"
    was, now = stored["model"], current["model"]
    if was["content"] != now["content"]:
        if now["content"].startswith(_UNKNOWN):
            return (
                f"it cannot be determined whether the {now['name']} is the same as before. Give its class a "
                "method __dask_tokenize__ that returns the name of its version"
            )
        if was["name"] != now["name"]:
            return f"it contains predictions of the {was['name']}, not of the {now['name']}"
        return f"the {now['name']} is not the same as before: its code, data or weights differ"
    for part, what in (("model_options", "the model's option"), ("options", "the option")):
        for name, value in current[part].items():
            if (before := stored[part].get(name)) != value:
                return f"{what} {name} was {shorten(str(before))} and is now {shorten(value)}"
    if name := _first_difference(stored["properties"], current["properties"]):
        return f"the property {name!r} of the image, which is an input of the model, has another value"
    if list(stored["image"]) != list(current["image"]):
        return f"the bands of the image were {list(stored['image'])} and are now {list(current['image'])}"
    if stored["grid"] != current["grid"]:
        return f"its grid is {stored['grid']} and would be {current['grid']}"
    if stored["source"] != current["source"]:
        return f"the grid of the image was {stored['source']} and is now {current['source']}"
    if stored["outputs"] != current["outputs"]:
        name = _first_difference(stored["outputs"], current["outputs"])
        was, now = (part["outputs"].get(name, "absent") for part in (stored, current))
        return f"its band {name!r} is {shorten(str(was), 200)} and would be {shorten(str(now), 200)}"
    if name := _first_difference(stored["coordinates"], current["coordinates"]):
        return f"the coordinate {name!r} has other values"
    if name := _first_difference(stored["image"], current["image"]):
        was, now = stored["image"][name], current["image"][name]
        if was["nodata"] != now["nodata"]:
            return f"nodata of the image's band {name!r} was {was['nodata']} and is now {now['nodata']}"
        return (
            f"the image's band {name!r} is not the same array. Arrays from files and numpy arrays are "
            "recognised in every session; arrays of random numbers and from dask.delayed only with an "
            "explicit name, as in dask.array.from_delayed(..., name='scene-7')"
        )
    if part := _first_difference(stored["calls"], current["calls"]):
        return f"the {current['model']['name']} is called with different {part} than before"
    return ""


def _result_georef(predicted: xr.Dataset) -> GeoRef:
    """Return the georeference of the result; y and x are the last dimensions of its bands."""
    y_dim, x_dim = next(iter(predicted.data_vars.values())).dims[-2:]
    named = predicted.copy(deep=False)
    named.rio.set_spatial_dims(x_dim, y_dim, inplace=True)
    return read_georef(named)


def _grid(georef: GeoRef) -> dict[str, Any]:
    return {"crs": georef.crs_text, "transform": list(georef.affine)[:6]}


def _array_name(band: xr.DataArray) -> str:
    """Return Dask's name of an array, a hash of its source and computation, or a hash of its values.

    Files that are opened without chunks are read part by part, because Dask gives them another name in every
    session.
    """
    if band.chunks is not None:
        return str(band.data.name)
    variable, digest = band.variable, hashlib.sha256()
    longest = max(variable.dims, key=lambda dim: variable.sizes[dim])
    step = max(1, _PART_BYTES * variable.sizes[longest] // max(variable.nbytes, 1))
    for start in range(0, variable.sizes[longest], step):
        part = np.ascontiguousarray(variable.isel({longest: slice(start, start + step)}).values)
        digest.update(part.reshape(-1).view(np.uint8).data)
    return f"values-{digest.hexdigest()}"


def _first_difference(stored: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    return next((name for name in {**current, **stored} if stored.get(name) != current.get(name)), "")


def _content_of(content: Hashable) -> str:
    """Return a content hash as text, or a unique text if it is None."""
    return str(content) if content is not None else f"{_UNKNOWN} {uuid.uuid4().hex}"
