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

from xee_tf.bands import image_dataset
from xee_tf.errors import shorten
from xee_tf.georef import GeoRef, read_georef, spatial_dims
from xee_tf.georef.conventions import raster_variables
from xee_tf.identity import content_hash
from xee_tf.model.spec import Model

__all__ = ["Description", "describe_run", "difference"]

Description = Mapping[str, Any]
"""As JSON holds it."""

_PART_BYTES = 64 << 20  # of an array that is read to be recognised
_UNKNOWN = "unknown"
_FORMAT = 2  # 1 was that of version 0.1.0, which compared display texts
_DEFAULTS = {"blend": "crop", "augment": None, "resampling": "nearest", "output_grid": "image"}
# Fields of a model that change no value of an image.
_WITHOUT_EFFECT = frozenset({"connector", "output_multiplier", "output_properties"})
_DECODING = (
    "_FillValue",
    "missing_value",
    "nodata",
    "nodatavals",
    "valid_min",
    "valid_max",
    "valid_range",
    "scale_factor",
    "add_offset",
    "_Unsigned",
)


def describe_run(
    model: Model, image: xr.Dataset | xr.DataArray, predicted: xr.Dataset, options: Mapping[str, Any]
) -> Description:
    """The identity of a prediction: everything that its values depend on, by content.

    Parameters
    ----------
    model : Model
    image : Dataset or DataArray
        Dask arrays are compared by their names, which are hashes of how they are made, others by their
        values.
    predicted : Dataset
        The lazy result.
    options : mapping
        Those of `predict_image`.
    """
    properties = options.get("properties")
    properties = image.attrs if properties is None else properties
    place = _place(predicted)
    described = {
        "format": _FORMAT,
        "model": {"name": str(model.connector), "content": _content_of(model.connector.content())},
        "model_options": {
            each.name: str(getattr(model, each.name))
            for each in fields(model)
            if each.name not in _WITHOUT_EFFECT
        },
        "options": {name: str(options.get(name, default)) for name, default in _DEFAULTS.items()},
        "properties": {
            name: _content_of(content_hash(np.asarray(properties[name])))
            for name in model.input_properties
            if name in properties
        },
        "image": _bands(model, image_dataset(image)),
        "grid": {"crs": place.crs_text, "transform": list(place.affine)[:6]},
        "outputs": {
            str(name): [
                str(band.dtype),
                list(band.sizes.items()),
                [list(sizes) for sizes in band.chunks or ()],
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
    """Why a store does not hold the prediction that is described, as part of a sentence; empty if it does.

    Parameters
    ----------
    there, here : mapping
        As `describe_run` gives them: what the store has, and what would be written.
    """
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
    if there["outputs"] != here["outputs"]:
        name = _first_difference(there["outputs"], here["outputs"])
        was, now = (part["outputs"].get(name, "absent") for part in (there, here))
        return f"its band {name!r} is {shorten(str(was), 200)}, and would be {shorten(str(now), 200)}"
    if name := _first_difference(there["coordinates"], here["coordinates"]):
        return f"the coordinate {name!r} has other values"
    if name := _first_difference(there["image"], here["image"]):
        if there["image"][name]["decoding"] != here["image"][name]["decoding"]:
            return f"nodata, scale or offset of the image's band {name!r} differ"
        return (
            f"the image's band {name!r} is not the same array. Arrays that come from files or from numpy are "
            "recognised in every session; those of random numbers or of dask.delayed only where they have a "
            "name of their own, such as dask.array.from_delayed(..., name='scene-7')"
        )
    return ""


def _place(predicted: xr.Dataset) -> GeoRef:
    """Where the result lies: y and x are the last dimensions of its bands, whatever they are called."""
    y_dim, x_dim = next(iter(predicted.data_vars.values())).dims[-2:]
    named = predicted.copy(deep=False)
    named.rio.set_spatial_dims(x_dim, y_dim, inplace=True)
    return read_georef(named)


def _bands(model: Model, dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """The bands that the model sees."""
    wanted = model.bands if model.inputs is None else list(model.inputs)
    found = {
        str(name): {
            "dtype": str(band.dtype),
            "sizes": list(band.sizes.items()),
            "array": _array_name(band),
            "decoding": {
                key: str(value) for key, value in {**band.encoding, **band.attrs}.items() if key in _DECODING
            },
        }
        for name, band in raster_variables(dataset, *spatial_dims(dataset))
        if wanted is None or str(name) in wanted
    }
    # Only where all bands are taken does their order in the image count.
    return found if wanted is None else dict(sorted(found.items()))


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
