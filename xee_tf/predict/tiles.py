"""Sizes of the tiles that a model takes and returns, their overlap, and the largest tile that can be sent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xee_tf.connector import Connector, Signature, TensorInfo
from xee_tf.errors import OptionError
from xee_tf.geometry import Size
from xee_tf.models import Feed, ModelSpec, order_hint

__all__ = ["Tiles", "check_tile_size", "plan_tiles", "tile_items"]

Sides = tuple[int | None, int | None]


@dataclass(frozen=True)
class Tiles:
    """Sizes of tiles in pixels.

    Parameters
    ----------
    core : Size
        Size of a tile in the input without its overlap.
    overlap : Size
        Pixels added along each edge of the core.
    output : Size
        Size of the output for the core.

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
        """Size of the tiles that are sent to the model."""
        return self.core.with_margin(self.overlap)

    @property
    def output_overlap(self) -> Size | None:
        """The overlap at the scale of the output, or None if it is not a whole number of pixels."""
        x, y = self.overlap.x * self.output.x, self.overlap.y * self.output.y
        if x % self.core.x or y % self.core.y:
            return None
        return Size(x=x // self.core.x, y=y // self.core.y)

    @property
    def padded(self) -> Size | None:
        """Size of the output with its overlap, or None if that is not a whole number of pixels."""
        margin = self.output_overlap
        return None if margin is None else self.output.with_margin(margin)

    def scaled(self, shape: Size) -> Size:
        """Return the size of the result that covers an image of a given size."""
        return Size(
            x=-(-shape.x * self.output.x // self.core.x), y=-(-shape.y * self.output.y // self.core.y)
        )


def plan_tiles(spec: ModelSpec, signature: Signature, feeds: Sequence[Feed]) -> Tiles:
    """Return the tile sizes given by the options or the signature of a model.

    Raises
    ------
    OptionError
        If neither defines the size of a tile, or they contradict each other.
    """
    tiled = {feed.input for feed in feeds if feed.tiled}
    inputs = {name: info for name, info in (signature.inputs or {}).items() if name in tiled}
    required = _sides(inputs)
    overlap = spec.input_overlap_size
    core = spec.input_tile_size
    if core is None:
        if required[0] is None or required[1] is None:
            raise OptionError(
                f"{spec.connector} accepts tiles of any size. Specify one, for example "
                "input_tile_size=(256, 256)."
            )
        width, height = required[1] - 2 * overlap.x, required[0] - 2 * overlap.y
        if min(width, height) < 1:
            raise OptionError(
                f"{spec.connector} requires tiles of {_format_size(required)} pixels, and input_overlap_size="
                f"{overlap.xy} along each edge leaves no pixels. The overlap must be smaller than half a "
                "tile. If the overlap is the sum of both edges, pass overlap_is_total=True."
            )
        core = Size(x=width, y=height)
    tiles = Tiles(core, overlap, core)
    if any(side not in (None, sent) for side, sent in zip(required, tiles.sent.shape, strict=True)):
        raise OptionError(
            f"{spec.connector} requires tiles of {_format_size(required)} pixels; got "
            f"{_format_size(tiles.sent.shape)} pixels from input_tile_size={core.xy} and input_overlap_size="
            f"{overlap.xy} along each edge. If the overlap is the sum of both edges, pass "
            f"overlap_is_total=True.{order_hint(spec.connector)}"
        )
    if spec.output_tile_size is not None:
        return Tiles(core, overlap, spec.output_tile_size)
    return Tiles(core, overlap, _output(spec, signature, tiles))


def tile_items(feeds: Sequence[Feed], tile: Size) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return the dtype and shape of each input of a model for one tile."""
    return {
        feed.input: (feed.dtype, (*tile.shape, *feed.shape) if feed.tiled else feed.shape) for feed in feeds
    }


def check_tile_size(connector: Connector, feeds: Sequence[Feed], tiles: Tiles, count: int) -> None:
    """Check that `count` tiles can be sent to a model in one request.

    Raises
    ------
    OptionError
        If they cannot. The message contains the largest possible tile size.
    """
    core, overlap = tiles.core, tiles.overlap

    def size_problem(side: int) -> str:
        """Return why tiles whose sides are at most `side` cannot be sent; empty if they can."""
        tile = Size(x=min(core.x, side), y=min(core.y, side)).with_margin(overlap)
        return connector.size_problem(tile_items(feeds, tile), count)

    longest = max(core.xy)
    if not (reason := size_problem(longest)):
        return
    fitting = bisect_right(range(1, longest), 0, key=lambda side: int(bool(size_problem(side))))
    if fitting:
        best = min(core.x, fitting), min(core.y, fitting)
        largest = f"The largest possible tile is input_tile_size={best}"
    else:
        largest = "Not even a tile of one pixel can be sent"
    margin = f" with an overlap of {overlap.xy} along each edge" if any(overlap.xy) else ""
    raise OptionError(
        f"Tiles of {core.x} x {core.y} pixels{margin} cannot be sent to {connector}: {reason}. {largest}. "
        "If the server accepts larger requests, increase max_payload_bytes."
    )


def _output(spec: ModelSpec, signature: Signature, tiles: Tiles) -> Size:
    """Return the size of the output in the signature; that of the input if it is not specified there."""
    outputs = signature.outputs or {}
    chosen = {
        name: info for name, info in outputs.items() if name in (spec.output_bands or outputs)
    } or outputs
    if chosen and all(info.shape is not None and len(info.shape) < 3 for info in chosen.values()):
        return Size(x=1, y=1)
    height, width = _sides(chosen)
    if height is None or width is None:
        return tiles.core
    output = Size(x=width, y=height)
    if output in (tiles.sent, tiles.core):
        return tiles.core
    if tiles.sent == tiles.core:
        lengths = list(zip(output.xy, tiles.core.xy, strict=True))
        if all(max(pair) % min(pair) == 0 for pair in lengths):
            return output
        fix = f"output_tile_size={output.xy} if it changes the resolution"
        if all(length < sent and (sent - length) % 2 == 0 for length, sent in lengths):
            margin = tuple((sent - length) // 2 for length, sent in lengths)
            fix = (
                f"input_tile_size={output.xy} and input_overlap_size={margin} if its convolutions leave out "
                f"the margins of a tile, or {fix}"
            )
        raise OptionError(
            f"{spec.connector} returns tiles of {_format_size(output.shape)} pixels for tiles of "
            f"{_format_size(tiles.sent.shape)} pixels. Pass {fix}."
        )
    raise OptionError(
        f"{spec.connector} returns tiles of {_format_size(output.shape)} pixels for tiles of "
        f"{_format_size(tiles.sent.shape)} pixels. Specify how many of them correspond to input_tile_size="
        f"{tiles.core.xy} with output_tile_size=(width, height)."
    )


def _sides(tensors: Mapping[str, TensorInfo]) -> Sides:
    """Return the height and width that the shapes of a model define; None if they vary."""
    sides = [info.shape[1:3] for info in tensors.values() if info.shape is not None and len(info.shape) >= 3]
    distinct = [{side[axis] for side in sides} - {None} for axis in (0, 1)]
    return tuple(axis.pop() if len(axis) == 1 else None for axis in distinct)  # type: ignore[return-value]


def _format_size(sides: Sequence[int | None]) -> str:
    height, width = ("any" if side is None else side for side in sides)
    return f"{width} x {height}"
