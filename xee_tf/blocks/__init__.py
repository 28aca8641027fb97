"""Blocks of patches, and their assembly from the chunks of a raster; numpy only."""

from xee_tf.blocks.around import PointLayout, chunk_blocks, first_pixels, points_by_block
from xee_tf.blocks.assembling import BandRule, PlaneRule, assemble, cut_row, cut_strips, index_in, stitch
from xee_tf.blocks.layout import (
    Block,
    BlockAxis,
    BlockLayout,
    Chunk,
    ChunkGrid,
    Pieces,
    chunk_edges,
    main_edges,
    overlapping,
)
from xee_tf.blocks.memory import chunk_bytes, largest_window, strip_bytes
from xee_tf.blocks.sizing import lay_out_blocks, pixel_bytes
from xee_tf.blocks.tiling import tiles

__all__ = [
    "BandRule",
    "Block",
    "BlockAxis",
    "BlockLayout",
    "Chunk",
    "ChunkGrid",
    "Pieces",
    "PlaneRule",
    "PointLayout",
    "assemble",
    "chunk_blocks",
    "chunk_bytes",
    "chunk_edges",
    "cut_row",
    "cut_strips",
    "first_pixels",
    "index_in",
    "largest_window",
    "lay_out_blocks",
    "main_edges",
    "overlapping",
    "pixel_bytes",
    "points_by_block",
    "stitch",
    "strip_bytes",
    "tiles",
]
