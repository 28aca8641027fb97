"""The order of the axes of a model. Arrays are sent channels last, and converted to the order of ONNX models.

An order is a text of letters: N (tiles, pixels or rows), H and W (height and width), T (steps) and C
(channels). The dots in "NC..." and "N...C" are the axes of the steps of single pixels, of any number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from xee_tf.errors import ModelError, OptionError, shorten

__all__ = [
    "axis_name",
    "axis_of",
    "axis_order",
    "check_order",
    "choose_order",
    "from_last",
    "is_last",
    "last_order",
    "read_channels",
    "to_last",
]

_LAST = "NHWTC"  # the order of axes of the tiles and rows that are sent
_PIXELS_LAST = "N...C"  # the same for single pixels
_STEPS = "T23456789"  # the axes that the dots stand for
_SENT = f"NHW{_STEPS}C"
_NAMED = {"first": "NCTHW", "last": _LAST}
_NAMED_PIXELS = {"first": "NC...", "last": _PIXELS_LAST}
# The orders of tensors of tiles; without T for those of four axes.
_ORDERS = ("NCTHW", "NTCHW", "NHWTC", "NTHWC")

# The names of axes in STAC items with the extension MLM; the first one of each is written.
_AXES = {
    "N": ("batch", "b", "n", "sample"),
    "H": ("height", "h", "y"),
    "W": ("width", "w", "x"),
    "T": ("time", "t", "timestep", "temporal"),
    "C": ("channel", "c", "band", "variable", "feature", "class", "score"),
}
_LETTERS = {name: letter for letter, names in _AXES.items() for name in names}

Shape = Sequence[int | None]


def axis_name(letter: str) -> str:
    """Return the name of an axis.

    Examples
    --------
    >>> axis_name("C")
    'channel'
    """
    return _AXES[letter][0]


def axis_of(name: Any) -> str | None:
    """Return the letter of an axis by its name, which may be a plural; None if it is unknown.

    Examples
    --------
    >>> axis_of("Bands"), axis_of("classes"), axis_of("depth")
    ('C', 'C', None)
    """
    text = str(name).lower()
    endings = (text, text.removesuffix("s"), text.removesuffix("es"))
    return next((_LETTERS[each] for each in endings if each in _LETTERS), None)


def last_order(rank: int, *, pixels: bool = False) -> str | None:
    """Return the axes of a tensor of `rank` axes that is sent or returned; None if there is none.

    Examples
    --------
    >>> last_order(2), last_order(3), last_order(4), last_order(3, pixels=True)
    ('NC', 'NHW', 'NHWC', 'NTC')
    """
    orders = ("N", "NC", "NTC") if pixels else ("N", "NC", "NHW", "NHWC", _LAST)
    return orders[rank - 1] if 1 <= rank <= len(orders) else None


def is_last(order: str) -> bool:
    """Return whether axes are in the order in which they are sent.

    Examples
    --------
    >>> is_last("NHWC"), is_last("NCHW")
    (True, False)
    """
    return order == "".join(axis for axis in _LAST if axis in order)


def read_channels(value: Any, name: str = "channels", *, pixels: bool = False) -> str | None:
    """Parse the option `channels`: "first", "last", an order of axes, or None.

    Examples
    --------
    >>> read_channels("first"), read_channels("NTCHW"), read_channels("first", pixels=True)
    ('NCTHW', 'NTCHW', 'NC...')
    """
    if value is None:
        return None
    if isinstance(value, str):
        if pixels and value in _NAMED_PIXELS:
            return _NAMED_PIXELS[value]
        order = _NAMED.get(value, value)
        axes = set(order)
        is_order = re.fullmatch("N[HWTC]+", order) is not None and len(axes) == len(order)
        if is_order and "C" in axes and ("H" in axes) == ("W" in axes):
            if pixels and "H" in axes:
                raise OptionError(
                    f"{name}={value!r} has axes for the height and width of a tile, but unit='pixel' sends "
                    "single pixels: pass 'first' or 'last', or omit unit."
                )
            return order
    raise OptionError(
        f"{name} must be 'first', 'last', or the order of the axes of the model, such as 'NTCHW' for "
        f"(n, time, band, height, width); got {shorten(repr(value))}."
    )


def axis_order(order: str, rank: int) -> str | None:
    """Return the letters of the axes of a tensor with `rank` axes; None if it is not of that kind.

    Examples
    --------
    >>> axis_order("NCTHW", 4), axis_order("NCTHW", 2), axis_order("NC...", 3)
    ('NCHW', None, 'NCT')
    """
    if "..." in order:
        return order.replace("...", _STEPS[: rank - 2]) if 2 <= rank <= 2 + len(_STEPS) else None
    for axes in (order, order.replace("T", "")):
        if len(axes) == rank:
            return axes
    return None


def to_last(order: str, rank: int) -> tuple[int, ...] | None:
    """Return the permutation of axes from the order of a model to channels last; None if it changes nothing.

    Examples
    --------
    >>> to_last("NCTHW", 4), to_last("NTCHW", 5), to_last("NHWTC", 4)
    ((0, 2, 3, 1), (0, 3, 4, 1, 2), None)
    """
    axes = axis_order(order, rank)
    last = [axis for axis in _SENT if axis in (axes or "")]
    return None if axes is None or axes == "".join(last) else tuple(map(axes.index, last))


def from_last(order: str, rank: int) -> tuple[int, ...] | None:
    """Return the permutation of axes from channels last to the order of a model; see `to_last`.

    Examples
    --------
    >>> from_last("NCTHW", 4)
    (0, 3, 1, 2)
    """
    found = to_last(order, rank)
    return None if found is None else tuple(map(found.index, range(rank)))


def choose_order(shapes: Mapping[str, Shape], model: str, *, pixels: bool = False) -> str:
    """Return the order of axes that the shapes of the inputs of a model show.

    Only inputs with four or five axes are considered, or of single pixels those with at least three; without
    any, nothing is permuted.

    ==================  ======================================================
    ``(?, 3, ?, ?)``    channels first: the height and width vary
    ``(1, 3, 64, 64)``  channels first: the height and width are equal
    ``(1, 3, 64, 99)``  channels first: there are fewer channels than pixels
    ``(?, 64, 64, 3)``  channels last
    ``(?, 3, 3, 3)``    error: ambiguous
    ``(?, ?, ?, ?)``    error: ambiguous
    ==================  ======================================================

    Channels of single pixels are last, unless the steps may be: another image than the model's is an error.

    ==================  ======================================================
    ``(?, ?, 3)``       channels last: the number of steps varies
    ``(?, 7, 3)``       channels last: an image with 7 bands does not fit
    ``(?, 3, 3)``       error: ambiguous
    ``(?, 3, ?)``       error: ambiguous
    ==================  ======================================================

    Parameters
    ----------
    shapes : mapping of str to sequence of int or None
        The shape of each input; None for an axis of any length.
    model : str
        The name of the model, for errors.
    pixels : bool, default False
        The model takes single pixels.

    Raises
    ------
    ModelError
        If several orders are possible.

    Examples
    --------
    >>> choose_order({"image": (None, 3, None, None)}, "The model")
    'NCTHW'
    >>> choose_order({"image": (None, None, None, None)}, "The model")
    Traceback (most recent call last):
    xee_tf.errors.ModelError: The input 'image' of The model has the shape (?, ?, ?, ?), whose axes may have
    several orders. Pass channels='first', as usual in PyTorch, or channels='last', as in TensorFlow.
    """
    if pixels:
        for name, shape in shapes.items():
            if len(shape) > 2 and (shape[-1] is None or shape[1] == shape[-1]):
                raise _ambiguous(
                    name,
                    shape,
                    model,
                    "channels='last' for (n, time, band), as in recurrent networks, or channels='first' for "
                    "(n, band, time), as in PyTorch's Conv1d",
                )
        return _PIXELS_LAST
    tiles = {name: shape for name, shape in shapes.items() if len(shape) in (4, 5)}
    if not tiles:
        return _LAST
    possible = {name: _possible(shape) for name, shape in tiles.items()}
    found: dict[
        tuple[str | None, ...], str
    ] = {}  # orders that have the same effect on all inputs are the same
    for order in _ORDERS:
        effect = tuple(axis_order(order, len(shape)) for shape in tiles.values())
        if all(axes in possible[name] for name, axes in zip(tiles, effect, strict=True)):
            found.setdefault(effect, order)
    if len(found) == 1:
        return next(iter(found.values()))
    name, shape = max(tiles.items(), key=lambda item: len(possible[item[0]]))
    fix = "channels='first', as usual in PyTorch, or channels='last', as in TensorFlow"
    if len(shape) == 5:
        fix = (
            "their order, such as channels='NTCHW' for (n, time, band, height, width) or channels='NCTHW' "
            "for (n, band, time, height, width)"
        )
    raise _ambiguous(name, shape, model, fix)


def check_order(order: str, shapes: Mapping[str, Shape], model: str) -> None:
    """Check that an order of axes is that of an input of a model, as far as the shapes are known.

    Raises
    ------
    ModelError
        If no input has as many axes.

    Examples
    --------
    >>> check_order("NCT", {"image": (None, 3, 64, 64)}, "The model")
    Traceback (most recent call last):
    xee_tf.errors.ModelError: channels='NCT' has 3 axes, but no input of The model has: 'image' has the 4 axes
    (?, 3, 64, 64). Pass the letters of all of them in their order, such as channels='NCHW'.
    """
    named = order in (*_NAMED.values(), *_NAMED_PIXELS.values())
    if named or not shapes or any(not shape or axis_order(order, len(shape)) for shape in shapes.values()):
        return
    name, shape = max(shapes.items(), key=lambda item: len(item[1]))
    example = {2: "NC", 3: "NCT", 4: "NCHW", 5: "NTCHW"}.get(len(shape))
    fix = "Omit it"
    if example is not None:
        fix = f"Pass the letters of all of them in their order, such as channels={example!r}"
    raise ModelError(
        f"channels={order!r} has {len(order)} axes, but no input of {model} has: {name!r} has the "
        f"{len(shape)} axes {_shape_text(shape)}. {fix}."
    )


def _shape_text(shape: Shape) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"


def _ambiguous(name: str, shape: Shape, model: str, fix: str) -> ModelError:
    return ModelError(
        f"The input {name!r} of {model} has the shape {_shape_text(shape)}, whose axes may have several "
        f"orders. Pass {fix}."
    )


def _possible(shape: Shape) -> set[str]:
    """Return the orders of the axes of an input that its shape allows."""
    orders = {axes for order in _ORDERS if (axes := axis_order(order, len(shape)))}
    lengths = {axes: dict(zip(axes, shape, strict=True)) for axes in orders}
    for test in (_sides_vary, _is_square, _has_few_channels):
        if fitting := {axes for axes in orders if test(lengths[axes])}:
            return fitting
    return orders


def _sides_vary(axes: Mapping[str, int | None]) -> bool:
    return axes["H"] is axes["W"] is None and axes["C"] is not None


def _is_square(axes: Mapping[str, int | None]) -> bool:
    return axes["H"] is not None and axes["H"] == axes["W"] != axes["C"]


def _has_few_channels(axes: Mapping[str, int | None]) -> bool:
    channels, sides = axes["C"], [axes[side] for side in "HW"]
    return channels is not None and all(side is None or channels < side for side in sides)
