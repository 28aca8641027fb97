"""Which further dimensions of an image go to the model, and which are mapped over."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import permutations

from xee_tf.connector import Signature, TensorInfo
from xee_tf.errors import OptionError
from xee_tf.models.feeds import arrangements, fits
from xee_tf.models.inputs import listed, no_room
from xee_tf.models.spec import ModelSpec

__all__ = ["find_array_dims"]

Dims = tuple[Hashable, ...]
_LEAD = 3  # tiles, height, width


def find_array_dims(
    spec: ModelSpec,
    signature: Signature,
    bands: Mapping[str, Mapping[Hashable, int]],
    groups: Mapping[str, Sequence[str]],
) -> Dims:
    """The dimensions that the model takes as a whole, in its order; all others are mapped over.

    The order of dimensions in the image has no meaning. The first of these that is given decides:

    1. ``array_dims`` of the model. ``()`` maps over every dimension.
    2. ``input_shapes`` and the shapes of the model's own inputs: the dimensions whose sizes give them.
    3. Neither: every dimension is mapped over. This is the case for functions, whose inputs
       have no known shape.

    Bands a and b have 7 steps of time, s has none; h and w are the sides of a tile:

    =======  =============================  ==============================  ======  ==========
    bands    model                          sent                            mapped  to model
    =======  =============================  ==============================  ======  ==========
    a, b, s  function                       ``(n, h, w, 3)``                time
    a, b, s  function, array_dims="time"    ``(n, h, w, 7, 3)``                     time
    a        function, array_dims="time"    ``(n, h, w, 7, 1)``                     time
    a        input_shapes={"a": [7]}        ``(n, h, w, 7)``                        time
    a, b     ``(?, ?, ?, 2)``               ``(n, h, w, 2)``                time
    a, b     ``(?, ?, ?, 7, 2)``            ``(n, h, w, 7, 2)``                     time
    a        ``(?, ?, ?, 7)``               ``(n, h, w, 7)``                        time
    a        ``(?, ?, ?, 1)``               ``(n, h, w, 1)``                time
    a        ``(?, ?, ?, ?)``               error: it could mean both
    a, b     ``(?, 7, 2)``, ``(?, 2)``      error: single pixels
    a, b     ``(?, 7, ?, ?, 2)``            error: steps in front of tiles
    =======  =============================  ==============================  ======  ==========

    Parameters
    ----------
    spec : ModelSpec
    signature : Signature
    bands : mapping from str to (mapping from dimension to int)
        The bands of the image; their dimensions beside y and x, with the number of steps.
    groups : mapping from str to sequence of str
        The bands and properties that go to each input.

    Raises
    ------
    OptionError
        If array_dims does not fit the bands, no dimensions fit the model, or several choices do.
    ModelError
        If the model takes single pixels.

    Examples
    --------
    >>> image = {"a": {"time": 7, "run": 2}, "b": {"run": 2, "time": 7}}
    >>> from xee_tf.models.function import FunctionConnector
    >>> spec = ModelSpec(FunctionConnector.of(len))
    >>> groups = {"x": ["a", "b"]}
    >>> find_array_dims(spec, Signature({"x": TensorInfo(None, (None, None, None, 7, 2))}), image, groups)
    ('time',)
    """
    seen = {name: bands[name] for members in groups.values() for name in members if name in bands}
    if spec.array_dims is not None:
        return _checked(spec.array_dims, seen)
    inputs = {
        target: info
        for target, info in (signature.inputs or {}).items()
        if info.shape is not None and any(name in seen for name in groups.get(target, ()))
    }
    declared = {name: shape for name, shape in (spec.input_shapes or {}).items() if name in seen}
    deciding = {*declared, *(name for target in inputs for name in groups[target])}
    sizes = {dim: size for name in seen if name in deciding for dim, size in seen[name].items()}
    if not sizes:
        return ()
    choices = _permutations(sizes)
    for name, shape in declared.items():
        exact = [dims for dims in choices if _shape(dims, seen[name]) == shape]
        # Each step of a scalar band may be declared as [1], which is how it is sent.
        choices = exact or [dims for dims in choices if (*_shape(dims, seen[name]), 1) == shape == (1,)]
        if not choices:
            raise OptionError(
                f"input_shapes has {list(shape)} for {name!r}, and the image has "
                f"{_steps(seen[name]) or 'no dimensions beside y and x'} for it."
            )
    for target, info in inputs.items():
        members = groups[target]
        rank = tuple(info.shape or ())
        if len(rank) < _LEAD or _of_single_pixels(rank, len(members), sizes):
            raise no_room(spec, target, info)
        explicit = all(name in declared for name in members if seen.get(name))
        fitting = [dims for dims in choices if _takes(dims, members, seen, rank[_LEAD:], flat=explicit)]
        if _steps_first(rank, len(members), sizes):
            raise OptionError(
                f"The input {target!r} of {spec.connector} is {info}, with steps in front of height and "
                "width. Tiles are sent as (n, height, width, steps, bands): give Model.from_function a "
                "function that moves the axis, model(np.moveaxis(tiles, 3, 1)), and array_dims=[...]."
            )
        if not fitting and any(seen.get(name) for name in members):
            raise _nothing_fits(spec, target, info, members, seen)
        choices = fitting or choices  # plan_feeds refuses bands without further dimensions
    return _only(choices, sizes, spec, inputs)


def _permutations(dims: Mapping[Hashable, int]) -> list[Dims]:
    """Some of the dimensions in every order, those of no dimension first."""
    return [chosen for count in range(len(dims) + 1) for chosen in permutations(dims, count)]


def _checked(dims: Dims, seen: Mapping[str, Mapping[Hashable, int]]) -> Dims:
    sizes = {dim: size for own in seen.values() for dim, size in own.items()}
    if unknown := [dim for dim in dims if dim not in sizes]:
        raise OptionError(
            f"array_dims has {listed(unknown)}, but the bands that the model takes, {listed(list(seen))}, "
            f"have {_steps(sizes) or 'no dimensions'} beside y and x."
        )
    if empty := [dim for dim in dims if not sizes[dim]]:
        raise OptionError(
            f"The dimension {empty[0]!r} has no steps, and array_dims sends all of them to the model."
        )
    return dims


def _shape(dims: Dims, sizes: Mapping[Hashable, int]) -> tuple[int, ...]:
    return tuple(sizes[dim] for dim in dims if dim in sizes)


def _takes(
    dims: Dims,
    members: Sequence[str],
    seen: Mapping[str, Mapping[Hashable, int]],
    wanted: Sequence[int | None],
    *,
    flat: bool,
) -> bool:
    """Whether the bands with these dimensions have the shape that an input takes in each pixel."""
    inner = {dim: seen[name][dim] for dim in dims for name in members if dim in seen.get(name, ())}
    shapes = []
    for name in members:
        own = seen.get(name, {})
        aligned = tuple(size if dim in own else 1 for dim, size in inner.items())
        shapes.append(aligned if inner.keys() & own.keys() else ())
    found = arrangements(shapes, tiled=True, flat=flat)
    return any(fits(wanted, shape) for shape in found) and 0 not in inner.values()


def _only(
    choices: Sequence[Dims], sizes: Mapping[Hashable, int], spec: ModelSpec, inputs: Mapping[str, TensorInfo]
) -> Dims:
    """The one choice. A dimension of one step makes no difference to the model: it is mapped over."""
    fewest = {dims for dims in choices if len(dims) == len(choices[0])}
    kinds = {tuple(dim for dim in dims if sizes[dim] != 1) for dims in choices}
    if len(fewest) == len(kinds) == 1:
        return choices[0]
    what = "; ".join(f"{target!r}: {info}" for target, info in inputs.items()) or "input_shapes"
    shown = sorted({*fewest, *choices[:3]}, key=list(choices).index)
    remedies = [
        f"array_dims={dims!r} sends all steps of {' and '.join(map(repr, dims))} to the model, in this order"
        if dims
        else "array_dims=() predicts each step by itself"
        for dims in shown
    ]
    raise OptionError(
        f"The bands have {_steps(sizes)}, and {spec.connector} could take them in several ways ({what}). "
        f"Choose one with the option array_dims of the model: {'; '.join(remedies)}."
    )


def _of_single_pixels(shape: Sequence[int | None], bands: int, sizes: Mapping[Hashable, int]) -> bool:
    """Whether ``(n, steps, bands)`` looks more likely than ``(n, height, width)``."""
    if len(shape) != _LEAD:
        return False
    _, steps, last = shape
    return bands > 1 or (last == 1 and (steps is None or steps in sizes.values()))


def _steps_first(shape: Sequence[int | None], bands: int, sizes: Mapping[Hashable, int]) -> bool:
    """Whether ``(n, steps, height, width, bands)`` is the only reading, as of ConvLSTM models."""
    if len(shape) != _LEAD + 2:
        return False
    _, first, second, behind, last = shape
    first_only = first in sizes.values() and first not in (second, behind)
    return first_only and last in (None, bands)


def _nothing_fits(
    spec: ModelSpec,
    target: str,
    info: TensorInfo,
    members: Sequence[str],
    seen: Mapping[str, Mapping[Hashable, int]],
) -> OptionError:
    sizes = {dim: size for name in members for dim, size in seen.get(name, {}).items()}
    inner = ", ".join("any" if side is None else str(side) for side in (info.shape or ())[_LEAD:])
    return OptionError(
        f"The input {target!r} of {spec.connector} is {info}, [{inner}] in each pixel. That is neither "
        f"[{len(members)}], the bands {listed(members)} of one step, nor these bands with {_steps(sizes)} in "
        "front of them. Select the bands (bands=[...]) or the steps that the model takes, or give the "
        "dimensions that it takes, in its order: array_dims=[...]."
    )


def _steps(sizes: Mapping[Hashable, int]) -> str:
    return " and ".join(
        f"{'the dimension ' if not at else ''}{dim!r} ({size} {'step' if size == 1 else 'steps'})"
        for at, (dim, size) in enumerate(sizes.items())
    )
