"""Tiles that are too large for a request: found before anything is sent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from xee_tf.connector import Connector
from xee_tf.errors import OptionError
from xee_tf.geometry import Size
from xee_tf.models.inputs import Feed

__all__ = ["refuse_too_large"]


def refuse_too_large(
    connector: Connector, feeds: Sequence[Feed], core: Size, overlap: Size, count: int = 1
) -> None:
    """Check that tiles can be sent at all.

    Parameters
    ----------
    connector : Connector
    feeds : sequence of Feed
        What goes into the inputs of the model.
    core, overlap : Size
        Pixels of a tile, and those added along each edge.
    count : int, optional
        Tiles that must be sent together.

    Raises
    ------
    OptionError
        That says how large a tile could be.
    """

    def refusal(side: int) -> str:
        """Of tiles that are no longer than `side` on either side."""
        height, width = (min(core.y, side) + 2 * overlap.y, min(core.x, side) + 2 * overlap.x)
        items = {
            feed.input: (feed.dtype, (height, width, *feed.shape) if feed.tiled else feed.shape)
            for feed in feeds
        }
        return connector.refusal(items, count)

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
