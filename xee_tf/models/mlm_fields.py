"""The inputs and outputs that an item of the Machine Learning Model extension (MLM) describes, as options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xee_tf.display import quoted
from xee_tf.errors import ModelError, OptionError, excerpt, warn
from xee_tf.geometry import Size
from xee_tf.models.axis_orders import axis_of
from xee_tf.options import is_number

__all__ = [
    "INPUT_TYPES",
    "OUTPUT_TYPES",
    "axis_order_of",
    "check_types",
    "input_options",
    "output_options",
    "require_plain",
    "tile_options",
]

# The pairs of numbers of `normalize` for each type of scaling, and the fields that they come from.
_SCALINGS: dict[str, dict[str, str]] = {
    "min-max": {"min": "minimum", "max": "maximum"},
    "z-score": {"mean": "mean", "std": "stddev"},
    "offset": {"offset": "value"},
    "scale": {"scale": "value"},
}


# Types of numbers, except complex ones.
_DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_DTYPES |= {"float16", "float32", "float64"}

_LONGEST = 2**31 - 1  # the longest axis of a tensor in most libraries

# The types of fields, and of the elements of lists; absent fields and null are allowed.
_Types = Mapping[str, tuple[type | tuple[type, ...], type | tuple[type, ...] | None]]
_NAMES = (list, (str, Mapping))
INPUT_TYPES: _Types = {
    "name": (str, None),
    "bands": _NAMES,
    "variables": _NAMES,
    "input": (Mapping, None),
    "value_scaling": (list, (Mapping, type(None))),
    "statistics": (list, Mapping),
}
OUTPUT_TYPES: _Types = {
    "name": (str, None),
    "bands": _NAMES,
    "variables": _NAMES,
    "result": (Mapping, None),
    "classification:classes": (list, Mapping),
    "classification_classes": (list, Mapping),
}
_ARRAY_TYPES: _Types = {"shape": (list, int), "dim_order": (list, str), "data_type": (str, None)}
_CLASS_TYPES: _Types = {"value": (int, None), "name": (str, None)}


def check_types(holder: Mapping[str, Any], types: _Types, item: str) -> None:
    """Raise an error if fields of an object have wrong types.

    Raises
    ------
    ModelError
        If they have; the message contains the field.

    Examples
    --------
    >>> check_types({"bands": 3}, INPUT_TYPES, "The item 'a'")
    Traceback (most recent call last):
    xee_tf.errors.ModelError: The item 'a' has a field 'bands' of a wrong type: 3.
    """
    for key, (kind, inner) in types.items():
        value: Any = holder.get(key)
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if fits and inner is not None:
            fits = all(isinstance(each, inner) and not isinstance(each, bool) for each in value)
        if value is not None and not fits:
            raise ModelError(f"{item} has a field {key!r} of a wrong type: {excerpt(value)}.")


def axis_order_of(structure: Mapping[str, Any], item: str) -> str:
    """Return the order of the axes of an input."""
    check_types(structure, _ARRAY_TYPES, item)
    names, shape = structure.get("dim_order"), structure.get("shape")
    if not isinstance(names, Sequence) or not isinstance(shape, Sequence) or len(names) != len(shape):
        raise ModelError(
            f"{item} has an input without dim_order and shape of the same length; got {excerpt(names)} and "
            f"{excerpt(shape)}."
        )
    _check_shape(shape, item)
    order = "".join(axis_of(name) or "?" for name in names)
    if "?" in order or len(set(order)) < len(order) or ("H" in order) != ("W" in order):
        raise ModelError(
            f"{item} has an input with the dimensions {quoted(list(map(str, names)))}. Only batch, time, "
            "channel, height and width can be used."
        )
    return order if "N" in order else f"N{order}"


def _check_shape(shape: Sequence[int], item: str) -> None:
    """Raise an error for lengths of axes that no array has; -1 is any length."""
    if not all(side == -1 or 0 < side <= _LONGEST for side in shape):
        raise ModelError(
            f"{item} has the shape {excerpt(list(shape))}: the lengths of axes must be -1 (any) or from 1 to "
            f"{_LONGEST:,}."
        )


def require_plain(inputs: Sequence[Mapping[str, Any]], item: str) -> None:
    """Raise an error if inputs have to be prepared in a way that is not applied here."""
    for each in inputs:
        needed = ""
        if each.get("pre_processing_function"):
            needed = f"pre_processing_function {excerpt(each['pre_processing_function'])}"
        elif str(each.get("resize_type") or "").startswith(("interpolation", "wrap")):
            needed = f"resize_type {each['resize_type']!r}"
        for band in each.get("bands") or ():
            if isinstance(band, Mapping) and band.get("expression"):
                needed = f"expression {excerpt(band['expression'])} of the band {band.get('name')!r}"
        if needed:
            raise ModelError(
                f"{item} has the {needed}, which is not applied here. Apply it to the image, and pass "
                "preprocessed=True."
            )


def input_options(
    inputs: Sequence[Mapping[str, Any]],
    given: Mapping[str, Any],
    item: str,
    *,
    rows: bool,
    preprocessed: bool,
) -> dict[str, Any]:
    """Return the bands of each input, and how they are normalized."""
    option = "inputs={...}" if len(inputs) > 1 else "input_properties=[...]" if rows else "bands=[...]"
    chosen = given.get("input_properties" if rows else "bands")
    replaced = chosen is not None or given.get("inputs") is not None
    bands = {str(each.get("name")): _names(each, item, "" if replaced else option) for each in inputs}
    if len(bands) < len(inputs):
        raise ModelError(f"{item} has several inputs with the same name, {quoted(bands)}.")
    options: dict[str, Any] = {}
    if len(inputs) == 1:
        ((_, names),) = bands.items()
        names = names if chosen is None else list(chosen)
        if len(set(names)) < len(names):
            raise ModelError(
                f"{item} has an input with the bands {quoted(names)}: names are repeated. Give each step or "
                "source of the image its own name, and pass all of them: bands=[...]."
            )
        bands = {next(iter(bands)): names}
        if names:
            options["input_properties" if rows else "bands"] = names
    else:
        options["inputs"] = {band: name for name, names in bands.items() for band in names}
        if sum(map(len, bands.values())) > len(options["inputs"]):
            raise ModelError(
                f"{item} has inputs that share bands: {bands}. Assign them by inputs={{...}}, with a copy of "
                "each band that goes to several inputs."
            )
        if not rows:
            names_of_properties = [str(each.get("name")) for each in inputs if not _listed(each)]
            options["input_properties"] = names_of_properties
    if given.get("normalize") is None:
        scales: dict[str, Any] = {}
        for each, (name, names) in zip(inputs, bands.items(), strict=True):
            # An input without bands, next to others, is a property with its name.
            members = names or ([name] if len(inputs) > 1 else [])
            scales |= _scales(each, members, item, preprocessed=preprocessed)
        if scales:
            options["normalize"] = scales
    return options


def _listed(each: Mapping[str, Any]) -> Sequence[Any]:
    """Return the bands or variables of an input or output, which are names or objects."""
    return each.get("bands") or each.get("variables") or ()


def _names(each: Mapping[str, Any], item: str, option: str) -> list[str]:
    """Return the names of the bands or variables of an input or output.

    If some have no name, raise an error that asks for `option`; return no names if `option` is empty, because
    users pass other names.
    """
    found = [band.get("name") if isinstance(band, Mapping) else band for band in _listed(each)]
    names = [name for name in found if isinstance(name, str) and name.strip()]
    if len(names) == len(found):
        return names
    if not option:
        return []
    key = "bands" if each.get("bands") else "variables"
    unnamed = next(band for band, name in zip(_listed(each), found, strict=True) if name not in names)
    raise ModelError(
        f"{item} has {excerpt(each.get('name'))}, an input or output with {key} without a name, such as "
        f"{excerpt(unnamed)}. Pass the names of all of them: {option}."
    )


def _scales(
    each: Mapping[str, Any], names: Sequence[str], item: str, *, preprocessed: bool
) -> dict[str, Mapping[str, Any]]:
    """Return the numbers of `normalize` for the bands of an input."""
    scalings = each.get("value_scaling")
    if scalings is None and each.get("norm_type"):  # MLM 1.0
        scalings = [{**one, "type": each["norm_type"]} for one in each.get("statistics") or [{}]]
    scalings = [one or {} for one in scalings or []]
    if not any(one.get("type") for one in scalings) or preprocessed:
        return {}
    if len(scalings) == 1 and names:
        scalings = scalings * len(names)
    if not names or len(scalings) != len(names):
        raise ModelError(
            f"{item} has {len(scalings)} value_scaling for the bands {quoted(names) or 'none'}. Pass "
            "normalize={...} with an offset and a scale for each band, or their names: bands=[...]."
        )
    return {name: _scale(one, item) for name, one in zip(names, scalings, strict=True)}


def _scale(scaling: Mapping[str, Any], item: str) -> Mapping[str, Any]:
    kind = scaling.get("type")
    if kind is None:
        return {"offset": 0, "scale": 1}
    fields = _SCALINGS.get(str(kind))
    if fields is None or not all(is_number(scaling.get(field)) for field in fields.values()):
        raise ModelError(
            f"{item} has the value_scaling {excerpt(dict(scaling))}. Only {quoted(list(_SCALINGS))} with "
            "their numbers can be used: apply it to the image, and pass preprocessed=True or normalize={...}."
        )
    numbers = {name: float(scaling[field]) for name, field in fields.items()}
    width = (
        numbers["max"] - numbers["min"] if "max" in numbers else numbers.get("std", numbers.get("scale", 1))
    )
    if not width or not math.isfinite(width) or not all(map(math.isfinite, numbers.values())):
        raise ModelError(
            f"{item} has the value_scaling {excerpt(dict(scaling))}, by which no number can be divided: its "
            "numbers must be finite, and stddev, value of a scale, or maximum less minimum not 0."
        )
    return numbers if len(numbers) == 2 else {"offset": 0, "scale": 1} | numbers


def tile_options(
    structure: Mapping[str, Any], order: str, given: Mapping[str, Any], item: str
) -> dict[str, Any]:
    """Return the size of a tile without its overlap, if the item contains one."""
    shape = structure["shape"]
    sides = dict(zip(order[len(order) - len(shape) :], shape, strict=True))
    width, height = sides["W"], sides["H"]
    if not all(isinstance(side, int) and side > 0 for side in (width, height)):
        return {}
    overlap = Size.from_xy(given.get("input_overlap_size") or 0, "input_overlap_size", least=0)
    edges = 1 if given.get("overlap_is_total") else 2
    core = width - edges * overlap.x, height - edges * overlap.y
    if min(core) < 1 and given.get("input_tile_size") is None:
        raise OptionError(
            f"{item} has tiles of {width} x {height} pixels, and input_overlap_size={overlap.xy} leaves no "
            "pixels."
        )
    return {"input_tile_size": core}


def output_options(
    outputs: Sequence[Mapping[str, Any]], given: Mapping[str, Any], item: str, *, rows: bool
) -> dict[str, Any]:
    """Return the declaration of outputs; channels of a single one have the names of its bands or classes."""
    key = "output_properties" if rows else "output_bands"
    option = "" if given.get(key) is not None else f"{key}=[...]"
    declared: dict[str, Any] = {}
    for each in outputs:
        name, result = str(each.get("name") or "output"), each.get("result") or {}
        check_types(result, _ARRAY_TYPES, item)
        _check_shape(result.get("shape") or (), item)
        if name in declared:
            raise ModelError(f"{item} has several outputs with the name {name!r}.")
        if function := each.get("post_processing_function"):
            warn(
                f"{item} has the post_processing_function {excerpt(function)}, which is not applied: "
                "predictions are what the model returns."
            )
        dtype = result.get("data_type")
        kind = {"type": dtype} if dtype in _DTYPES else {}
        channels = _channels(result)
        classes = _classes(each, item)
        if len(outputs) == 1 and channels is not None and channels > 1:
            names = _names(each, item, option)
            names = names or [str(one.get("name") or one["value"]) for one in sorted(classes, key=_value)]
            if len(set(names)) == channels:
                return dict.fromkeys(names, kind)
        if channels in (None, 1):
            if classes and str(dtype).startswith(("int", "uint")):
                values = list(map(_value, classes))
                kind = {"type": {"precision": "int", "min": min(values), "max": max(values)}}
            declared[name] = kind
        else:
            declared[name] = kind | ({"shape": [channels]} if channels and channels > 0 else {})
    return declared


def _classes(output: Mapping[str, Any], item: str) -> list[Mapping[str, Any]]:
    """Return the classes of an output that have a value."""
    found = output.get("classification:classes") or output.get("classification_classes") or []
    for one in found:
        check_types(one, _CLASS_TYPES, item)
    return [one for one in found if one.get("value") is not None]


def _value(one: Mapping[str, Any]) -> int:
    return int(one["value"])


def _channels(result: Mapping[str, Any]) -> int | None:
    """Return the number of channels of an output; None if it has no such axis."""
    names, shape = result.get("dim_order") or (), result.get("shape") or ()
    for name, side in zip(names, shape, strict=False):
        if axis_of(name) == "C":
            return int(side)
    return None
