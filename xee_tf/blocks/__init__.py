"""Chunks of a raster and the blocks of patches that are made from them; numpy only."""
