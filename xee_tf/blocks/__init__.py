"""Blocks of patches, and their assembly from the chunks of a raster; numpy only."""

from xee_tf.blocks.assembling import BandRule, PlaneRule, assemble, cut_row, cut_strips, stitch
from xee_tf.blocks.layout import Block, BlockAxis, BlockLayout, Chunk, ChunkGrid, Pieces, chunk_edges
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
    "assemble",
    "chunk_edges",
    "cut_row",
    "cut_strips",
    "lay_out_blocks",
    "pixel_bytes",
    "stitch",
    "tiles",
]
