"""The sizes of tiles: what is sent, what comes back, how much of either is overlap, what is too large."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xee_tf.connector import Connector, Signature, TensorInfo
from xee_tf.errors import OptionError
from xee_tf.geometry import Size
from xee_tf.models import Feed, ModelSpec

__all__ = ["Tiles", "plan_tiles", "refuse_too_large"]

Sides = tuple[int | None, int | None]


@dataclass(frozen=True)
class Tiles:
    """Sizes of tiles in pixels.

    Parameters
    ----------
    core, overlap : Size
        Pixels of the input that a tile owns, and those added along each edge.
    output : Size
        Pixels that come back for the core.

    Examples
    --------
    >>> tiles = Tiles(Size(x=128, y=128), Size(x=64, y=64), Size(x=32, y=32))
    >>> tiles.sent, tiles.padded
    (Size(x=256, y=256), Size(x=64, y=64))
    """

    core: Size
    overlap: Size
    output: Size

    @property
    def sent(self) -> Size:
        """What the model sees."""
        return self.core.with_margin(self.overlap)

    @property
    def output_overlap(self) -> Size | None:
        """The overlap at the scale of the output; None where that is no whole number of pixels."""
        x, y = self.overlap.x * self.output.x, self.overlap.y * self.output.y
        if x % self.core.x or y % self.core.y:
            return None
        return Size(x=x // self.core.x, y=y // self.core.y)

    @property
    def padded(self) -> Size | None:
        """What comes back from a model that keeps the overlap, if that is a whole number of pixels."""
        margin = self.output_overlap
        return None if margin is None else self.output.with_margin(margin)

    def scaled(self, shape: Size) -> Size:
        """Pixels of the result that cover so many pixels of the image."""
        return Size(
            x=-(-shape.x * self.output.x // self.core.x), y=-(-shape.y * self.output.y // self.core.y)
        )


def plan_tiles(spec: ModelSpec, signature: Signature, feeds: Sequence[Feed]) -> Tiles:
    """The sizes that the user gave or the model tells.

    Raises
    ------
    OptionError
        If neither says it, or they contradict each other.
    """
    tiled = {feed.input for feed in feeds if feed.tiled}
    inputs = {name: info for name, info in (signature.inputs or {}).items() if name in tiled}
    wanted = _sides(inputs)
    overlap = spec.input_overlap_size
    core = spec.input_tile_size
    if core is None:
        if wanted[0] is None or wanted[1] is None:
            raise OptionError(
                f"{spec.connector} takes tiles of any size: say how large they shall be, for example "
                "input_tile_size=(256, 256)."
            )
        width, height = wanted[1] - 2 * overlap.x, wanted[0] - 2 * overlap.y
        if min(width, height) < 1:
            raise OptionError(
                f"{spec.connector} takes tiles of {_say(wanted)} pixels, and input_overlap_size="
                f"{overlap.xy} along each edge leaves no pixel of them. It must be smaller than half a tile. "
                "Where the overlap is meant as the sum of both edges, say overlap_is_total=True."
            )
        core = Size(x=width, y=height)
    tiles = Tiles(core, overlap, core)
    if any(side not in (None, found) for side, found in zip(wanted, tiles.sent.shape, strict=True)):
        raise OptionError(
            f"{spec.connector} takes tiles of {_say(wanted)} pixels, and would be sent "
            f"{_say(tiles.sent.shape)}: input_tile_size={core.xy} and input_overlap_size={overlap.xy} along "
            "each edge. Where the overlap is meant as the sum of both edges, say overlap_is_total=True."
        )
    if spec.output_tile_size is not None:
        return Tiles(core, overlap, spec.output_tile_size)
    return Tiles(core, overlap, _output(spec, signature, tiles))


def refuse_too_large(connector: Connector, feeds: Sequence[Feed], tiles: Tiles, count: int) -> None:
    """Check that `count` tiles, which must be sent together, can be sent at all.

    Raises
    ------
    OptionError
        That says how large a tile could be.
    """
    core, overlap = tiles.core, tiles.overlap

    def refusal(side: int) -> str:
        """Of tiles that are no longer than `side` on either side."""
        height, width = Size(x=min(core.x, side), y=min(core.y, side)).with_margin(overlap).shape
        items = {
            feed.input: (feed.dtype, (height, width, *feed.shape) if feed.tiled else feed.shape)
            for feed in feeds
        }
        return connector.size_problem(items, count)

    longest = max(core.xy)
    if not (said := refusal(longest)):
        return
    fitting = bisect_right(range(1, longest), 0, key=lambda side: int(bool(refusal(side))))
    if fitting:
        best = min(core.x, fitting), min(core.y, fitting)
        mend = f"The largest that could be sent is input_tile_size={best}"
    else:
        mend = "Not even a tile of one pixel could be sent"
    margin = f" with {overlap.xy} more along each edge" if any(overlap.xy) else ""
    raise OptionError(
        f"Tiles of {core.x} x {core.y} pixels{margin} cannot be sent to {connector}: {said}. {mend}; or "
        "raise max_payload_bytes, if the server takes more."
    )


def _output(spec: ModelSpec, signature: Signature, tiles: Tiles) -> Size:
    """The output tile as the model tells it; the input tile where it does not."""
    outputs = signature.outputs or {}
    chosen = {
        name: info for name, info in outputs.items() if name in (spec.output_bands or outputs)
    } or outputs
    if chosen and all(info.shape is not None and len(info.shape) < 3 for info in chosen.values()):
        return Size(x=1, y=1)
    height, width = _sides(chosen)
    if height is None or width is None:
        return tiles.core
    told = Size(x=width, y=height)
    if told in (tiles.sent, tiles.core):
        return tiles.core
    if tiles.sent == tiles.core:
        return told
    raise OptionError(
        f"{spec.connector} gives tiles of {_say(told.shape)} pixels for the {_say(tiles.sent.shape)} that "
        f"it is sent. Say how many of them belong to input_tile_size={tiles.core.xy}: "
        "output_tile_size=(width, height)."
    )


def _sides(tensors: Mapping[str, TensorInfo]) -> Sides:
    """Height and width, as far as a model fixes them."""
    sides = [info.shape[1:3] for info in tensors.values() if info.shape is not None and len(info.shape) >= 3]
    found = [{side[axis] for side in sides} - {None} for axis in (0, 1)]
    return tuple(axis.pop() if len(axis) == 1 else None for axis in found)  # type: ignore[return-value]


def _say(sides: Sequence[int | None]) -> str:
    height, width = ("any" if side is None else side for side in sides)
    return f"{width} x {height}"
