"""Classes of a map: their names, numbers and colors, how pixels get one, and the attributes that tell them.

The attributes are those of CF (section 3.5), ``flag_values`` and ``flag_meanings``, and ``flag_colors`` as in
the land-cover maps of ESA and Copernicus, which xcube also reads. Names with blanks, which `flag_meanings`
cannot hold, are kept in ``class_names``. Other characters that CF does not allow in `flag_meanings` stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.display import quoted
from xee_tf.dtypes import nodata_candidates
from xee_tf.errors import OptionError, shorten
from xee_tf.options import integer, read_names

__all__ = ["CONFIDENCE", "Classes", "Color", "Labels", "find_labels", "highest"]

CONFIDENCE = "confidence"
"""The name of the band with the highest probability."""

Color = str | Sequence[int]
"""``"#rrggbb"`` or ``(red, green, blue)``, from 0 to 255."""

Planes = Sequence[NDArray[Any]] | NDArray[Any]
"""The probabilities of each class."""

_LARGEST = 65_535  # color tables of GeoTIFFs have uint8 or uint16 indices


@dataclass(frozen=True)
class Classes:
    """The classes of a map.

    Parameters
    ----------
    names : tuple of str
        Names of the classes.
    values : tuple of int
        The number of each class in the map.
    colors : tuple of str or None
        The color of each class, ``"#rrggbb"``.
    nodata : int
        The number of masked pixels.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    colors: tuple[str, ...] | None
    nodata: int

    @classmethod
    def of(
        cls,
        names: Any,
        values: Any = None,
        colors: Any = None,
        nodata: Any = None,
        *,
        within: str = "",
        named: str = "class_names",
    ) -> Classes:
        """Check the classes that a user describes.

        Parameters
        ----------
        names : sequence of str
            Names of two or more classes.
        values : sequence of int, or mapping of str to int, optional
            The number of each class, in the order of `names` or by name. Default: 0, 1, 2, ...
        colors : sequence, or mapping of str to color, optional
            The same for the color of each class.
        nodata : int, optional
            The number of masked pixels. Default: 255, or 65535 if a class needs 16 bits; if that is a class,
            the smallest number that is none.
        within : str
            The option of which these are parts, for errors.
        named : str
            What the option of `names` is called, for errors.

        Examples
        --------
        >>> colors = {"water": "#00F", "forest": (0, 128, 0)}
        >>> classes = Classes.of(["forest", "water"], values=[1, 255], colors=colors)
        >>> classes.colors, classes.nodata, classes.dtype
        (('#008000', '#0000ff'), 0, dtype('uint8'))
        """

        def option(name: str) -> str:
            return f"{within}[{name!r}]" if within else name

        if numbers := _only_numbers(names):
            raise OptionError(
                f"{option(named)} must be a list of names, in the order of the probabilities; got "
                f"{shorten(repr(numbers))}. For a map with these numbers, pass names of them, such as "
                f"{shorten(repr(list(map(str, numbers))))}, and the numbers as {option('values')}."
            )
        found = read_names(names, option(named), ("forest", "water"))
        if len(found) < 2:
            raise OptionError(
                f"{option(named)} must name two or more classes; got {quoted(found)}. Of a single "
                "probability, make a map with a threshold: probability > 0.5."
            )
        numbers = list(range(len(found)))
        if values is not None:
            numbers = _numbers(values, found, option("values"))
        painted = None if colors is None else _colors(colors, found, option("colors"))
        taken = set(numbers)
        if nodata is None:
            usual = nodata_candidates(_dtype(max(numbers)))[0]
            free = (number for number in (usual, *range(_LARGEST + 1)) if number not in taken)
            masked = next(free, None)
            if masked is None:
                raise OptionError(f"{option(named)} has {len(found)} classes; no number is left for nodata.")
        else:
            masked = integer(0, _LARGEST)(nodata, option("nodata"))
            if masked in taken:
                raise OptionError(
                    f"{option('nodata')} must be a number that no class has; got {masked}, the number of "
                    f"{found[numbers.index(masked)]!r}."
                )
        return cls(found, tuple(numbers), painted, masked)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the map: uint8, or uint16 for more than 255 classes or larger numbers."""
        return _dtype(max(*self.values, self.nodata))

    def attrs(self) -> dict[str, Any]:
        """Return the attributes of the map.

        Examples
        --------
        >>> Classes.of(["mixed forest", "water"]).attrs()
        {'_FillValue': np.uint8(255), 'flag_values': array([0, 1], dtype=uint8),
         'flag_meanings': 'mixed_forest water', 'class_names': ['mixed forest', 'water']}
        """
        found: dict[str, Any] = {
            "_FillValue": self.dtype.type(self.nodata),
            "flag_values": np.array(self.values, self.dtype),
            "flag_meanings": " ".join(map(_word, self.names)),
        }
        if self.colors is not None:
            found["flag_colors"] = " ".join(self.colors)
        return {**found, "class_names": list(self.names)}

    def assign(
        self, planes: Planes, nodata: Sequence[Sequence[float]] = (), /
    ) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Return the number of the class of each pixel.

        Parameters
        ----------
        planes : sequence of ndarray
            The probabilities of each class. Of equal ones, the first is taken. A pixel with NaN in any of
            them is masked.
        nodata : sequence of sequence of number, optional
            For each class, values that mark masked pixels, in addition to NaN.

        Examples
        --------
        >>> water = np.array([0.5, 0.1, np.nan])
        >>> Classes.of(["forest", "water"]).assign([1 - water, water])
        array([  0,   0, 255], dtype=uint8)
        """
        best = _copied(planes)
        found = np.full(best.shape, self.values[0], self.dtype)
        for value, plane in zip(self.values[1:], planes[1:], strict=True):
            np.copyto(found, value, where=plane > best)
            np.maximum(best, plane, out=best)  # which keeps NaN
        found[_masked(best, planes, nodata)] = self.nodata
        return found


def highest(planes: Planes, nodata: Sequence[Sequence[float]] = (), /) -> NDArray[np.float32]:
    """Return the highest probability of each pixel, NaN if it is masked; see `Classes.assign`.

    Examples
    --------
    >>> water = np.array([0.5, 0.1, np.nan])
    >>> highest([1 - water, water])
    array([0.5, 0.9, nan], dtype=float32)
    """
    best = _copied(planes)
    for plane in planes[1:]:
        np.maximum(best, plane, out=best)
    masked = _masked(best, planes, nodata)
    found = best.astype(np.float32, copy=False)
    found[masked] = np.nan
    return found


def _copied(planes: Planes) -> NDArray[Any]:
    return np.array(planes[0], np.result_type(*(plane.dtype for plane in planes)))


def _masked(best: NDArray[Any], planes: Planes, nodata: Sequence[Sequence[float]]) -> NDArray[np.bool_]:
    masked: NDArray[np.bool_] = np.isnan(best)
    for plane, own in zip(planes, nodata, strict=False):
        for number in own:
            masked |= plane == number
    return masked


def _dtype(largest: int) -> np.dtype[Any]:
    return np.dtype(np.uint8 if largest <= 255 else np.uint16)


def _only_numbers(names: Any) -> list[int]:
    """Return whole numbers that are given instead of names; empty if anything else is given."""
    given = names if isinstance(names, Sequence | np.ndarray | range) and not isinstance(names, str) else ()
    whole = [isinstance(name, int | np.integer) and not isinstance(name, bool) for name in given]
    return [int(name) for name in given] if whole and all(whole) else []


def _numbers(values: Any, names: Sequence[str], option: str) -> list[int]:
    each = _one_each(values, names, option, f"numbers from 0 to {_LARGEST}, such as [1, 2]")
    numbers = [integer(0, _LARGEST)(value, f"{option}[{at}]") for at, value in enumerate(each)]
    if repeated := [number for number in numbers if numbers.count(number) > 1]:
        raise OptionError(f"{option} must have a different number for each class; got {repeated[0]} twice.")
    return numbers


def _colors(values: Any, names: Sequence[str], option: str) -> tuple[str, ...]:
    each = _one_each(values, names, option, "colors such as ['#008000', '#0000ff']")
    return tuple(_color(value, f"{option}[{at}]") for at, value in enumerate(each))


def _one_each(values: Any, names: Sequence[str], option: str, what: str) -> list[Any]:
    """Return what a user gives for all classes, in their order or by their names, as a list."""
    if isinstance(values, Mapping):
        if wrong := [name for name in values if name not in names]:
            raise OptionError(f"{option} names {wrong[0]!r}, which is no class; they are {quoted(names)}.")
        if missing := [name for name in names if name not in values]:
            raise OptionError(f"{option} must be {what}, one for each class; got none for {quoted(missing)}.")
        return [values[name] for name in names]
    is_list = isinstance(values, Sequence | np.ndarray | range) and not isinstance(values, str | bytes)
    if not is_list or len(values) != len(names):
        got = f"{len(values)}" if is_list else shorten(repr(values))
        raise OptionError(
            f"{option} must be {what}, one for each of the {len(names)} classes {quoted(names)}; got {got}."
        )
    return list(values)


def _color(value: Any, option: str) -> str:
    if isinstance(value, str):
        if re.fullmatch("#[0-9a-fA-F]{6}", value):
            return value.lower()
        if re.fullmatch("#[0-9a-fA-F]{3}", value):
            return "#" + "".join(2 * digit for digit in value[1:].lower())
    elif isinstance(value, Sequence | np.ndarray) and len(value) == 3:
        return "#" + "".join(f"{integer(0, 255)(part, option):02x}" for part in value)
    raise OptionError(
        f"{option} must be a color such as '#2f7d4f' or (47, 125, 79); got {shorten(repr(value))}."
    )


def _word(name: str) -> str:
    return re.sub(r"\s", "_", name)


@dataclass(frozen=True)
class Labels:
    """What the attributes of a map say about its values: names and colors, ``(red, green, blue)``."""

    names: Mapping[int, str]
    colors: Mapping[int, tuple[int, int, int]]


def find_labels(attrs: Mapping[Any, Any]) -> Labels | None:
    """Return the names and colors of the values of a band, if its attributes have them.

    Attributes of another form are ignored, because other software may have written them.

    Examples
    --------
    >>> find_labels(Classes.of(["mixed forest", "water"], [1, 2], ["#008000", "#00f"]).attrs())
    Labels(names={1: 'mixed forest', 2: 'water'}, colors={1: (0, 128, 0), 2: (0, 0, 255)})
    >>> find_labels({"flag_values": "1 2"})
    """
    values, meanings = attrs.get("flag_values"), attrs.get("flag_meanings")
    if not isinstance(values, list | tuple | np.ndarray) or not isinstance(meanings, str):
        return None
    numbers = np.asarray(values)
    words, names, colors = meanings.split(), attrs.get("class_names"), attrs.get("flag_colors")
    if numbers.dtype.kind not in "iu" or numbers.shape != (len(words),):
        return None
    # The names of another map may have been left over.
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        words = list(names) if list(map(_word, names)) == words else words
    painted = re.findall(r"#([0-9a-fA-F]{6})\b", colors) if isinstance(colors, str) else []
    keys = numbers.tolist()
    rgb = [_rgb(text) for text in painted] if len(painted) == len(keys) else []
    return Labels(dict(zip(keys, words, strict=True)), dict(zip(keys, rgb, strict=False)))


def _rgb(digits: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue
