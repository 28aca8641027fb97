"""What must be the same for an interrupted prediction to be continued, and what differs in words."""

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

__all__ = ["Description", "describe_run", "difference"]

Description = Mapping[str, Any]
"""As JSON holds it."""

_PART_BYTES = 64 << 20  # of an array that is read to be recognised
_UNKNOWN = "unknown"
# 1 was that of version 0.1.0, which compared display texts; 2 overlooked masks and places; 3 wrote types
# under other names.
_FORMAT = 4
# Options of a prediction that change values, beside properties and the place, which are compared as they are.
_OPTIONS = ("blend", "augment", "resampling", "output_grid")
# Fields of a model that change no value of an image.
_WITHOUT_EFFECT = frozenset({"connector", "output_multiplier", "output_properties"})


def describe_run(spec: ModelSpec, prediction: Prediction) -> Description:
    """The identity of a prediction: everything that its values depend on, by content.

    Of the bands that the model sees, Dask arrays are compared by their names, which are hashes of how they
    are made, others by their values.
    """
    caller, predicted = prediction.caller, prediction.dataset
    place = _place(predicted)
    described = {
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
        "grid": _grid(place),
        # What follows from the model itself where no option says it.
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
            if dim in predicted.coords and dim not in (place.x_dim, place.y_dim)
        },
    }
    found: Description = json.loads(json.dumps(described))
    return found


def difference(there: Any, here: Description) -> str:
    """Why a store (`there`) does not hold the prediction described (`here`), in words; empty if it does."""
    if not isinstance(there, Mapping) or there.get("format") != _FORMAT:
        return "it was begun by another version of xee_tf"
    was, now = there["model"], here["model"]
    if was["content"] != now["content"]:
        if now["content"].startswith(_UNKNOWN):
            return (
                f"whether the {now['name']} is the same as before cannot be determined. Give its class a "
                "method __dask_tokenize__ that returns the name of its version"
            )
        if was["name"] != now["name"]:
            return f"it holds predictions of the {was['name']}, and this is the {now['name']}"
        return f"the {now['name']} is not the same as before: its code, data or weights differ"
    for part, what in (("model_options", "the model's option"), ("options", "the option")):
        for name, value in here[part].items():
            if (before := there[part].get(name)) != value:
                return f"{what} {name} was {shorten(str(before))}, and is now {shorten(value)}"
    if name := _first_difference(there["properties"], here["properties"]):
        return f"the property {name!r} of the image, which the model takes, has another value"
    if list(there["image"]) != list(here["image"]):
        return f"the image had the bands {list(there['image'])}, and has now {list(here['image'])}"
    if there["grid"] != here["grid"]:
        return f"its grid is {there['grid']}, and would be {here['grid']}"
    if there["source"] != here["source"]:
        return f"the image was at {there['source']}, and is now at {here['source']}"
    if there["outputs"] != here["outputs"]:
        name = _first_difference(there["outputs"], here["outputs"])
        was, now = (part["outputs"].get(name, "absent") for part in (there, here))
        return f"its band {name!r} is {shorten(str(was), 200)}, and would be {shorten(str(now), 200)}"
    if name := _first_difference(there["coordinates"], here["coordinates"]):
        return f"the coordinate {name!r} has other values"
    if name := _first_difference(there["image"], here["image"]):
        was, now = there["image"][name], here["image"][name]
        if was["nodata"] != now["nodata"]:
            return f"nodata of the image's band {name!r} was {was['nodata']}, and is now {now['nodata']}"
        return (
            f"the image's band {name!r} is not the same array. Arrays that come from files or from numpy are "
            "recognised in every session; those of random numbers or of dask.delayed only where they have a "
            "name of their own, such as dask.array.from_delayed(..., name='scene-7')"
        )
    if part := _first_difference(there["calls"], here["calls"]):
        return f"the {here['model']['name']} is called with other {part} than before"
    return ""


def _place(predicted: xr.Dataset) -> GeoRef:
    """Where the result lies: y and x are the last dimensions of its bands, whatever they are called."""
    y_dim, x_dim = next(iter(predicted.data_vars.values())).dims[-2:]
    named = predicted.copy(deep=False)
    named.rio.set_spatial_dims(x_dim, y_dim, inplace=True)
    return read_georef(named)


def _grid(georef: GeoRef) -> dict[str, Any]:
    return {"crs": georef.crs_text, "transform": list(georef.affine)[:6]}


def _array_name(band: xr.DataArray) -> str:
    """Dask's name of an array, a hash of the files and the steps that it comes from; else one of its values.

    Files that are opened without chunks are read for that, part by part: the names that Dask makes of
    those are other ones in every session.
    """
    if band.chunks is not None:
        return str(band.data.name)
    variable, found = band.variable, hashlib.sha256()
    longest = max(variable.dims, key=lambda dim: variable.sizes[dim])
    step = max(1, _PART_BYTES * variable.sizes[longest] // max(variable.nbytes, 1))
    for start in range(0, variable.sizes[longest], step):
        part = np.ascontiguousarray(variable.isel({longest: slice(start, start + step)}).values)
        found.update(part.reshape(-1).view(np.uint8).data)
    return f"values-{found.hexdigest()}"


def _first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    return next((name for name in {**here, **there} if there.get(name) != here.get(name)), "")


def _content_of(found: Hashable) -> str:
    """A hash; where there is none, a text that is never the same again."""
    return str(found) if found is not None else f"{_UNKNOWN} {uuid.uuid4().hex}"
