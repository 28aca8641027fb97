"""The dimensions of an image that go to the model as a whole; the others are mapped over."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import permutations

from xee_tf.connector import Signature, TensorInfo
from xee_tf.errors import OptionError
from xee_tf.models.feeds import arrangements, fits
from xee_tf.models.inputs import listed, of_tiles, tile_axes_error
from xee_tf.models.options import lead_axes
from xee_tf.models.spec import ModelSpec

__all__ = ["find_array_dims"]

Dims = tuple[Hashable, ...]
_TILE = lead_axes("tile")


def find_array_dims(
    spec: ModelSpec,
    signature: Signature,
    bands: Mapping[str, Mapping[Hashable, int]],
    groups: Mapping[str, Sequence[str]],
) -> Dims:
    """Return the dimensions that the model takes as a whole, in its order; all others are mapped over.

    The order of dimensions in the image does not matter. The first of these sources that exists is used:

    1. ``array_dims`` of the model. ``()`` maps over every dimension.
    2. ``input_shapes`` and the shapes of the model's own inputs: the dimensions with these sizes.
    3. Otherwise, every dimension is mapped over. This is the case for functions, whose inputs
       have unknown shapes.

    Bands a and b have 7 time steps, s has none; h and w are the height and width of a tile:

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
    a        ``(?, ?, ?, ?)``               error: ambiguous
    a, b     ``(?, 7, 2)``, ``(?, 2)``      error: single pixels
    a, b     ``(?, 7, ?, ?, 2)``            error: steps before height and width
    =======  =============================  ==============================  ======  ==========

    With ``unit="pixel"``, the same applies without h and w: a model ``(?, 7, 2)`` takes ``(n, 7, 2)``.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    signature : Signature
        The signature of the model.
    bands : mapping of str to mapping of hashable to int
        The dimensions of each band other than y and x, with their sizes.
    groups : mapping of str to sequence of str
        The bands and properties that go to each input.

    Returns
    -------
    tuple of hashable
        The dimensions.

    Raises
    ------
    OptionError
        If array_dims does not fit the bands, or if no dimensions or several choices fit the model.
    ModelError
        If the model takes single pixels, but its `unit` is not "pixel".

    Examples
    --------
    >>> image = {"a": {"time": 7, "run": 2}, "b": {"run": 2, "time": 7}}
    >>> from xee_tf.models.function import FunctionConnector
    >>> spec = ModelSpec(FunctionConnector.of(len))
    >>> groups = {"x": ["a", "b"]}
    >>> find_array_dims(spec, Signature({"x": TensorInfo(None, (None, None, None, 7, 2))}), image, groups)
    ('time',)
    """
    taken = {name: bands[name] for members in groups.values() for name in members if name in bands}
    if spec.array_dims is not None:
        return _check_array_dims(spec.array_dims, taken)
    inputs = {
        target: info
        for target, info in (signature.inputs or {}).items()
        if info.shape is not None and any(name in taken for name in groups.get(target, ()))
    }
    declared = {name: shape for name, shape in (spec.input_shapes or {}).items() if name in taken}
    deciding = {*declared, *(name for target in inputs for name in groups[target])}
    sizes = {dim: size for name in taken if name in deciding for dim, size in taken[name].items()}
    if not sizes:
        return ()
    choices = _permutations(sizes)
    for name, shape in declared.items():
        exact = [dims for dims in choices if _shape(dims, taken[name]) == shape]
        # A scalar band may be declared as [1] in each step, the shape that is sent.
        choices = exact or [dims for dims in choices if (*_shape(dims, taken[name]), 1) == shape == (1,)]
        if not choices:
            raise OptionError(
                f"input_shapes is {list(shape)} for {name!r}, but the band has "
                f"{_steps(taken[name]) or 'no dimensions'} other than y and x."
            )
    lead = lead_axes(spec.unit)
    for target, info in inputs.items():
        members = groups[target]
        sides = tuple(info.shape or ())
        if len(sides) < lead or (lead == _TILE and _of_single_pixels(sides, len(members), sizes)):
            raise tile_axes_error(spec, target, info)
        explicit = all(name in declared for name in members if taken.get(name))
        fitting = [dims for dims in choices if _takes(dims, members, taken, sides[lead:], flat=explicit)]
        if lead == _TILE and _steps_first(sides, len(members), sizes):
            raise OptionError(
                f"The input {target!r} of {spec.connector} is {info}, with steps before height and width. "
                "Tiles are sent as (n, height, width, steps, bands): use Model.from_function with a "
                "function that moves the axis, model(np.moveaxis(tiles, 3, 1)), and array_dims=[...]."
            )
        if not fitting and any(taken.get(name) for name in members):
            raise _shape_error(spec, target, info, members, taken)
        choices = fitting or choices  # plan_feeds checks bands without further dimensions
    return _only(choices, sizes, spec, inputs)


def _permutations(dims: Mapping[Hashable, int]) -> list[Dims]:
    """Return every selection of dimensions in every order, from none to all."""
    return [chosen for count in range(len(dims) + 1) for chosen in permutations(dims, count)]


def _check_array_dims(dims: Dims, taken: Mapping[str, Mapping[Hashable, int]]) -> Dims:
    sizes = {dim: size for own in taken.values() for dim, size in own.items()}
    if unknown := [dim for dim in dims if dim not in sizes]:
        raise OptionError(
            f"array_dims contains {listed(unknown)}, but the bands that the model takes, "
            f"{listed(list(taken))}, have {_steps(sizes) or 'no dimensions'} other than y and x."
        )
    if empty := [dim for dim in dims if not sizes[dim]]:
        raise OptionError(
            f"array_dims contains {empty[0]!r}, which has no steps: select an image with at least one step."
        )
    return dims


def _shape(dims: Dims, sizes: Mapping[Hashable, int]) -> tuple[int, ...]:
    return tuple(sizes[dim] for dim in dims if dim in sizes)


def _takes(
    dims: Dims,
    members: Sequence[str],
    taken: Mapping[str, Mapping[Hashable, int]],
    expected: Sequence[int | None],
    *,
    flat: bool,
) -> bool:
    """Return whether the bands with these dimensions have the shape of an input in each pixel."""
    inner = {dim: taken[name][dim] for dim in dims for name in members if dim in taken.get(name, ())}
    shapes = []
    for name in members:
        own = taken.get(name, {})
        aligned = tuple(size if dim in own else 1 for dim, size in inner.items())
        shapes.append(aligned if inner.keys() & own.keys() else ())
    found = arrangements(shapes, tiled=True, flat=flat)
    return any(fits(expected, shape) for shape in found) and 0 not in inner.values()


def _only(
    choices: Sequence[Dims], sizes: Mapping[Hashable, int], spec: ModelSpec, inputs: Mapping[str, TensorInfo]
) -> Dims:
    """Return the only choice. A dimension of one step is mapped over, which is the same to the model."""
    fewest = {dims for dims in choices if len(dims) == len(choices[0])}
    kinds = {tuple(dim for dim in dims if sizes[dim] != 1) for dims in choices}
    if len(fewest) == len(kinds) == 1:
        return choices[0]
    shapes = "; ".join(f"{target!r}: {info}" for target, info in inputs.items()) or "input_shapes"
    shown = sorted({*fewest, *choices[:3]}, key=list(choices).index)
    fixes = [
        f"array_dims={dims!r} sends all steps of {' and '.join(map(repr, dims))} to the model, in this order"
        if dims
        else "array_dims=() predicts each step separately"
        for dims in shown
    ]
    raise OptionError(
        f"The bands have {_steps(sizes)}, which {spec.connector} could take in several ways ({shapes}). "
        f"Set the option array_dims of the model: {'; '.join(fixes)}."
    )


def _of_single_pixels(shape: Sequence[int | None], bands: int, sizes: Mapping[Hashable, int]) -> bool:
    """Return whether a shape is more likely ``(n, steps, bands)`` than ``(n, height, width)``."""
    if len(shape) != _TILE:
        return False
    _, steps, last = shape
    return bands > 1 or (last == 1 and (steps is None or steps in sizes.values()))


def _steps_first(shape: Sequence[int | None], bands: int, sizes: Mapping[Hashable, int]) -> bool:
    """Return whether a shape can only be ``(n, steps, height, width, bands)``, as in ConvLSTM models."""
    if len(shape) != _TILE + 2:
        return False
    _, first, second, behind, last = shape
    first_only = first in sizes.values() and first not in (second, behind)
    return first_only and last in (None, bands)


def _shape_error(
    spec: ModelSpec,
    target: str,
    info: TensorInfo,
    members: Sequence[str],
    taken: Mapping[str, Mapping[Hashable, int]],
) -> OptionError:
    sizes = {dim: size for name in members for dim, size in taken.get(name, {}).items()}
    inner = (info.shape or ())[lead_axes(spec.unit) :]
    shown = ", ".join("any" if side is None else str(side) for side in inner)
    return OptionError(
        f"The input {target!r} of {spec.connector} is {info}, [{shown}] in each pixel. This is neither "
        f"[{len(members)}], the bands {listed(members)} in one step, nor these bands preceded by "
        f"{_steps(sizes)}. Select the bands (bands=[...]) or the steps that the model takes, or set the "
        f"dimensions that it takes, in its order: array_dims=[...].{of_tiles(spec, info)}"
    )


def _steps(sizes: Mapping[Hashable, int]) -> str:
    return " and ".join(
        f"{'the dimension ' if not at else ''}{dim!r} ({size} {'step' if size == 1 else 'steps'})"
        for at, (dim, size) in enumerate(sizes.items())
    )
