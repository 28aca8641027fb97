"""Encode the tiles of a GeoTIFF: a predictor in numpy, then deflate."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

__all__ = ["LEADER", "TRAILER", "encode_tile", "framed", "predictor_of"]

_LEVEL = 3  # of ISA-L, from 0 to 3: as small as zlib at level 6, and ten times as fast
_STRIP_BYTES = 1 << 18  # rows that are encoded at a time
LEADER, TRAILER = 4, 4  # bytes around each tile, as GDAL writes them


def predictor_of(dtype: np.dtype[Any]) -> int:
    """Return TIFF's number of the predictor for a dtype: differences of integers, or of bytes of floats."""
    return 3 if dtype.kind == "f" else 2


def encode_tile(planes: Sequence[NDArray[Any]], side: int) -> bytes:
    """Compress a tile of which all bands are stored pixel by pixel.

    Parameters
    ----------
    planes : sequence of ndarray
        The bands (y, x), of one dtype. A tile at an edge is filled with zeros, which readers ignore.
    side : int
        The size of tiles in pixels.

    Examples
    --------
    >>> import zlib
    >>> tile = encode_tile([np.array([[5, 7], [1, 1]], "uint8")], 2)
    >>> list(zlib.decompress(tile))
    [5, 2, 1, 0]
    """
    dtype, count = planes[0].dtype, len(planes)
    encode = _float_differences if predictor_of(dtype) == 3 else _differences
    stream = isal_zlib.compressobj(_LEVEL)
    pieces = []
    strip = max(1, min(side, _STRIP_BYTES // (side * count * dtype.itemsize)))
    for start in range(0, side, strip):  # small enough for the cache of the processor
        pixels = np.zeros((min(strip, side - start), side, count), dtype.newbyteorder("<"))
        for band, plane in enumerate(planes):
            own = plane[start : start + strip]
            pixels[: own.shape[0], : own.shape[1], band] = own
        pieces.append(stream.compress(encode(pixels)))
    return b"".join((*pieces, stream.flush()))


def _differences(pixels: NDArray[Any]) -> NDArray[Any]:
    out = pixels.copy()
    out[:, 1:] -= pixels[:, :-1]
    return out


def _float_differences(pixels: NDArray[Any]) -> NDArray[Any]:
    """Store the first bytes of all numbers of a row, then the second bytes, and so on; then differences."""
    rows, columns, count = pixels.shape
    size = pixels.dtype.itemsize
    numbers = pixels.view(f"<u{size}").reshape(rows, columns * count)
    split = np.empty((rows, size, columns * count), np.uint8)
    for byte in range(size):  # the most significant one first
        np.copyto(split[:, byte], numbers >> (8 * (size - 1 - byte)), casting="unsafe")
    joined = split.reshape(rows, -1)
    out = joined.copy()
    out[:, count:] -= joined[:, :-count]
    return out


def framed(tile: bytes) -> bytes:
    """Return a tile with its size before it and its last 4 bytes after it, which save readers requests."""
    return struct.pack("<I", len(tile)) + tile + tile[-TRAILER:]
