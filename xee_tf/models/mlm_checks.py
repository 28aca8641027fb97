"""Check what users say about a model that is described as a STAC item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from xee_tf.errors import OptionError, excerpt
from xee_tf.models.kinds import is_path
from xee_tf.options import did_you_mean, integer, is_number, read_names

__all__ = [
    "ClassNames",
    "read_bbox",
    "read_class_names",
    "read_further_properties",
    "read_href",
    "read_id",
    "read_interval",
    "read_tasks",
]

ClassNames = Mapping[int, str] | Sequence[str]
"""Names of classes, by their value or in the order of the channels."""

# Those of the schema of MLM 1.5.
_TASKS = (
    *("regression", "classification", "scene-classification", "detection", "object-detection"),
    *("segmentation", "semantic-segmentation", "instance-segmentation", "panoptic-segmentation"),
    *("similarity-search", "generative", "image-captioning", "super-resolution", "downscaling"),
)
_HALF_TURN = 180


def read_id(value: Any) -> str:
    """Check the ID of an item."""
    if not isinstance(value, str) or not value.strip():
        raise OptionError(
            f"id must be the name of the item, a text such as 'landcover-2024'; got {excerpt(value)}."
        )
    return value


def read_href(value: Any) -> str:
    """Return the path or URL of a model as text; it may be relative to the item."""
    if not is_path(value) or not str(value):
        raise OptionError(f"href must be the path or URL of the file of the model; got {excerpt(value)}.")
    return str(value)


def read_tasks(value: Any) -> list[str]:
    """Check the tasks of a model.

    Examples
    --------
    >>> read_tasks(["segmantation"])
    Traceback (most recent call last):
    xee_tf.errors.OptionError: tasks contains 'segmantation', which the extension MLM does not have. Did you
    mean 'segmentation'?
    """
    names = list(read_names(value, "tasks", ("semantic-segmentation", "regression")))
    for name in names:
        if name not in _TASKS:
            hint = did_you_mean(name, _TASKS) or f" Its tasks are {', '.join(map(repr, _TASKS))}."
            raise OptionError(f"tasks contains {name!r}, which the extension MLM does not have.{hint}")
    return names


def read_bbox(value: Any) -> tuple[list[float], dict[str, Any]]:
    """Return a bounding box and its geometry in GeoJSON.

    West of a box across 180 degrees is greater than east, and its geometry has two parts, as in RFC 7946.

    Examples
    --------
    >>> bbox, geometry = read_bbox((170, -50, -175, -30))
    >>> bbox, [part[0][0] for part in geometry["coordinates"]]
    ([170.0, -50.0, -175.0, -30.0], [[170.0, -50.0], [-180.0, -50.0]])
    """
    try:
        given = [] if isinstance(value, str | bytes | Mapping | set) else list(value)
    except TypeError:  # not iterable
        given = []
    problem = ""
    if len(given) != 4 or not all(map(is_number, given)):
        problem = "which are four numbers"
    else:
        west, south, east, north = bbox = [float(side) for side in given]
        crossing = west > east
        if not (abs(west) <= _HALF_TURN and abs(east) <= _HALF_TURN):  # also NaN
            problem = "with west and east from -180 to 180"
        elif not (-90 <= south <= north <= 90):
            problem = "with south not above north, both from -90 to 90"
        elif crossing and not 0 < east - west + 2 * _HALF_TURN <= _HALF_TURN:
            problem = "with west not above east, unless it crosses 180 degrees and is at most as wide"
    if problem:
        raise OptionError(
            f"bbox must be (west, south, east, north) in degrees, {problem}; got {excerpt(value)}."
        )
    if crossing:
        parts = [[_ring(west, south, 180.0, north)], [_ring(-180.0, south, east, north)]]
        return bbox, {"type": "MultiPolygon", "coordinates": parts}
    return bbox, {"type": "Polygon", "coordinates": [_ring(*bbox)]}


def _ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def read_interval(value: Any) -> tuple[str, str]:
    """Return two times as in RFC 3339; those without a time zone are in UTC.

    Examples
    --------
    >>> read_interval(("2020-01-01", "2021-06-30T12:00:00+02:00"))
    ('2020-01-01T00:00:00Z', '2021-06-30T12:00:00+02:00')
    """
    try:
        given = [] if isinstance(value, str | bytes | Mapping | set) else list(value)
    except TypeError:  # not iterable
        given = []
    times = [_time(each) for each in given]
    if len(times) != 2 or times[0] is None or times[1] is None or times[0] > times[1]:
        raise OptionError(
            "interval must be two dates or times, the first one not after the second, such as "
            f"('2020-01-01T00:00:00Z', '2024-12-31T23:59:59Z'); got {excerpt(value)}."
        )
    first, last = (each.isoformat().replace("+00:00", "Z") for each in times if each is not None)
    return first, last


def _time(value: Any) -> datetime | None:
    """Return a time with its time zone; None if `value` is no time."""
    dtype = getattr(value, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind == "M" and np.ndim(value) == 0:
        value = np.asarray(value).astype("datetime64[us]").item()  # None for NaT
    if isinstance(value, date | datetime):
        value = value.isoformat()
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def read_class_names(value: Any) -> list[tuple[int, str]]:
    """Return the values and the names of classes.

    Examples
    --------
    >>> read_class_names(["forest", "water"]), read_class_names({7: "forest", 3: "water"})
    ([(0, 'forest'), (1, 'water')], [(7, 'forest'), (3, 'water')])
    """
    if not isinstance(value, Mapping) and not isinstance(value, str):
        return list(enumerate(read_names(value, "classes", ("forest", "water"))))
    if isinstance(value, str) or not all(isinstance(name, str) for name in value.values()):
        raise OptionError(
            "classes must be names by their value, such as {1: 'forest', 2: 'water'}, or a list of names; "
            f"got {excerpt(value)}."
        )
    names = read_names(list(value.values()), "classes", ("forest", "water"))
    values = [integer()(key, "classes: the value of a class") for key in value]
    return list(zip(values, names, strict=True))


def read_further_properties(value: Any) -> Mapping[str, Any]:
    """Check further properties of an item, which is written as JSON."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise OptionError(
            "properties must be a mapping of names to values, such as {'mlm:architecture': 'U-Net'}; got "
            f"{excerpt(value)}."
        )
    for key, each in value.items():
        try:
            json.dumps(each, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise OptionError(
                f"properties[{key!r}] cannot be written as JSON: {error}; got {excerpt(each)}."
            ) from None
    return value
