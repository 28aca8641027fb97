"""Keep the pixels of a few blocks in memory, and cut patches from them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from xee_tf.blocks import BandRule, Block, BlockLayout, Chunk, assemble, cut_strips
from xee_tf.geometry import Size
from xee_tf.graph import ChunkedArray, load_chunks

__all__ = ["BlockMemory", "BlockSource", "Convert", "LoadedBlock", "Masks", "cut_patches"]

_LARGE_PATCH = 1 << 14  # bytes from which copying each patch by itself is faster than all at once, twice


@dataclass(frozen=True)
class BlockSource:
    """The blocks of a raster, and how their bands are assembled.

    Parameters
    ----------
    arrays : sequence of ChunkedArray
        Arrays of shape (y, x) or (step, y, x): one for each band, and the user's mask if there is one.
    names : sequence of str
        The name of the variable of each array.
    layout : BlockLayout
        The blocks.
    rules : tuple of BandRule
        One rule for each band.
    has_mask : bool
        Whether the user's mask follows the arrays of the bands.
    want_masks : bool
        Whether the masks of the bands are used.
    """

    arrays: Sequence[ChunkedArray]
    names: Sequence[str]
    layout: BlockLayout
    rules: tuple[BandRule, ...]
    has_mask: bool
    want_masks: bool = False


Masks = Sequence[NDArray[np.bool_]] | None
"""The masks of bands, of the same shapes, if they are used; true where masked."""

Convert = Callable[[list[NDArray[Any]], Masks], list[NDArray[Any]]]
"""Converts the bands of a block, arrays (step, y, x), and their masks, to the arrays to keep."""


@dataclass(frozen=True)
class LoadedBlock:
    """The pixels of a block.

    Parameters
    ----------
    first : tuple of int
        Row and column of its first patch in the grid.
    shape : tuple of int
        Number of its rows and columns of patches.
    arrays : list of ndarray
        Arrays (step, y, x, ...) of the pixels of its patches, margins included.
    """

    first: tuple[int, int]
    shape: tuple[int, int]
    arrays: list[NDArray[Any]]


class BlockMemory:
    """Blocks of pixels that are loaded when they are needed; the ones not used for longest are removed.

    A chunk is loaded with the block in which it starts. What later blocks need of it, strips along its
    bottom and its right edge, is kept until they have been loaded: if blocks are used in an order in which
    each one follows those above it and to its left, every chunk is loaded once. Several threads can use the
    same object; one of them loads at a time, and Dask loads in parallel.

    Parameters
    ----------
    source : BlockSource
        The blocks.
    convert : callable
        See `Convert`.
    blocks_bytes, strips_bytes : int
        Size of the blocks and of the strips to keep.
    """

    def __init__(
        self,
        source: BlockSource,
        convert: Convert,
        blocks_bytes: int,
        strips_bytes: int,
    ) -> None:
        self._source, self._convert = source, convert
        self._blocks_bytes, self._strips_bytes = blocks_bytes, strips_bytes
        self._blocks: OrderedDict[Block, LoadedBlock] = OrderedDict()
        self._strips: OrderedDict[Chunk, dict[str, NDArray[Any]]] = OrderedDict()
        self._reading, self._loading = threading.Lock(), threading.Lock()

    def get(self, blocks: Sequence[Block]) -> dict[Block, LoadedBlock]:
        """Return blocks, and load those that are not in memory."""
        found = self._in_memory(blocks)
        if len(found) < len(blocks):
            with self._loading:
                found |= self._in_memory([block for block in blocks if block not in found])
                missing = [block for block in blocks if block not in found]
                if missing:
                    loaded = self._load(missing)
                    with self._reading:
                        self._blocks |= loaded
                        _shrink(self._blocks, self._blocks_bytes, lambda block: block.arrays)
                    found |= loaded
        return found

    def _in_memory(self, blocks: Sequence[Block]) -> dict[Block, LoadedBlock]:
        with self._reading:
            found = {block: self._blocks[block] for block in blocks if block in self._blocks}
            for block in found:
                self._blocks.move_to_end(block)
        return found

    def _load(self, blocks: Sequence[Block]) -> dict[Block, LoadedBlock]:
        source, layout = self._source, self._source.layout
        pieces = {block: layout.pieces(*block) for block in blocks}
        # Whole chunks of blocks that are loaded now, and strips of those that were.
        needed = {
            (piece.plane, piece.iy, piece.ix)
            for block, own in pieces.items()
            for piece in own
            if piece.home == block
            or piece.part not in self._strips.get((piece.plane, piece.iy, piece.ix), {})
        }
        chunks = load_chunks(source.arrays, source.names, layout.planes, sorted(needed))
        for chunk, strips in cut_strips(layout, list(chunks.items())).items():
            self._strips.pop(chunk, None)  # the order is that of loading
            self._strips[chunk] = strips
        loaded = {}
        for block, own in pieces.items():
            values = [
                (
                    piece,
                    chunks[piece.plane, piece.iy, piece.ix]
                    if piece.home == block
                    else self._strips[piece.plane, piece.iy, piece.ix][piece.part],
                )
                for piece in own
            ]
            bands, masks = assemble(
                layout.window(*block),
                values,
                source.rules,
                has_mask=source.has_mask,
                want_masks=source.want_masks,
            )
            rows, columns = layout.y.owned(block[0]), layout.x.owned(block[1])
            loaded[block] = LoadedBlock(
                (rows.start, columns.start), (len(rows), len(columns)), self._convert(bands, masks)
            )
        _shrink(self._strips, self._strips_bytes, lambda strips: strips.values())
        return loaded


def _shrink(kept: OrderedDict[Any, Any], limit: int, arrays: Callable[[Any], Any]) -> None:
    """Remove the first values until the arrays of the others are not larger than the limit."""
    size = sum(array.nbytes for each in kept.values() for array in arrays(each))
    while size > limit and len(kept) > 1:
        _, removed = kept.popitem(last=False)
        size -= sum(array.nbytes for array in arrays(removed))


def cut_patches(
    out: NDArray[Any],
    at: NDArray[np.int64],
    block: LoadedBlock,
    number: int,
    places: NDArray[np.int64],
    patch: Size,
    offset: Size,
) -> None:
    """Copy patches from an array of a block.

    Parameters
    ----------
    out : ndarray
        Array (patch, step, y, x, ...) to which they are copied, whose shape determines their size.
    at : ndarray
        Their positions in `out`.
    block : LoadedBlock
        The block.
    number : int
        The number of the array.
    places : ndarray
        Rows and columns of the patches in the grid, as an array (2, patch).
    patch, offset : Size
        The distance of patches, and the first pixel of the first patch.
    """
    array = block.arrays[number]
    step, y, x, *rest = array.strides
    view = as_strided(
        array[:, offset.y :, offset.x :],
        shape=(*block.shape, *out.shape[1:]),
        strides=(patch.y * y, patch.x * x, step, y, x, *rest),
        writeable=False,
    )
    rows, columns = places - np.array(block.first)[:, None]
    if out[0].nbytes < _LARGE_PATCH:
        out[at] = view[rows, columns]
    else:
        for one, row, column in zip(at.tolist(), rows.tolist(), columns.tolist(), strict=True):
            out[one] = view[row, column]
