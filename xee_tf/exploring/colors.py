"""Convert the values of bands to colors."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.classes import Labels
from xee_tf.errors import OptionError, shorten
from xee_tf.extras import extra
from xee_tf.options import did_you_mean

__all__ = ["COLORS", "BandColors", "ClassColors", "Limits", "color_table", "png"]

COLORS = 256
"""Number of colors of a color map."""

Limits = tuple[float, float]
"""The values of the first and the last color."""

# Colors of classes whose attributes have none: matplotlib's "tab20", without its grays.
_PALETTE = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf"),
    *("#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#dbdb8d", "#9edae5"),
)


def color_table(name: Any, option: str) -> NDArray[np.uint8]:
    """Return the colors of a color map of matplotlib, as an array (256, 3).

    Raises
    ------
    OptionError
        If matplotlib does not know it.
    MissingExtraError
        If matplotlib is not installed.
    """
    with extra("map", "A color map"):
        import matplotlib
    if not isinstance(name, str) or name not in matplotlib.colormaps:
        hint = did_you_mean(name, list(matplotlib.colormaps)) if isinstance(name, str) else ""
        raise OptionError(
            f"{option} must be the name of a color map of matplotlib, such as 'viridis' or 'RdYlGn'; got "
            f"{shorten(repr(name))}.{hint}"
        )
    shades: NDArray[np.uint8] = matplotlib.colormaps[name](np.linspace(0, 1, COLORS), bytes=True)[:, :3]
    return shades


@dataclass(frozen=True)
class ClassColors:
    """The colors of a map of classes. Values that are no class are transparent.

    Parameters
    ----------
    values : ndarray
        The number of each class, ascending.
    names : tuple of str
        The names of the classes.
    colors : ndarray
        Array (class, 3) of uint8.

    Examples
    --------
    >>> classes = ClassColors.of(Labels({2: "water", 1: "forest"}, {1: (0, 128, 0), 2: (0, 0, 255)}))
    >>> index = classes.prepare([np.array([[2, 1, 7]])], [()])
    >>> classes.paint(index)[0].tolist()
    [[0, 0, 255, 255], [0, 128, 0, 255], [0, 0, 0, 0]]
    """

    values: NDArray[Any]
    names: tuple[str, ...]
    colors: NDArray[np.uint8]

    resampling = "nearest"
    fill = 0

    @classmethod
    def of(cls, labels: Labels) -> ClassColors:
        """Return the colors of classes; those without a color get one that is easy to tell from others."""
        values = sorted(labels.names)
        shades = [
            labels.colors.get(value, tuple(bytes.fromhex(_PALETTE[number % len(_PALETTE)][1:])))
            for number, value in enumerate(values)
        ]
        return cls(
            np.array(values), tuple(labels.names[value] for value in values), np.array(shades, np.uint8)
        )

    def prepare(
        self, planes: Sequence[NDArray[Any]], nodata: Sequence[Sequence[float]]
    ) -> NDArray[np.uint16]:
        """Return the number of the class of each pixel, from 1, as an array (1, y, x); 0 is masked."""
        [values], [own] = planes, nodata
        at = np.minimum(np.searchsorted(self.values, values), len(self.values) - 1)
        index = np.where(self.values[at] == values, at + 1, 0).astype(np.uint16)
        for number in own:
            index[values == number] = 0
        return index[np.newaxis]

    def paint(self, warped: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Return the pixels as an array (y, x, 4): red, green, blue and opacity."""
        table = np.zeros((len(self.values) + 1, 4), np.uint8)
        table[1:, :3], table[1:, 3] = self.colors, 255
        found: NDArray[np.uint8] = table[warped[0]]
        return found

    def legend(self) -> dict[str, Any]:
        """Return what the legend shows, for JSON."""
        return {
            "classes": [
                {"name": name, "color": _hex(color)}
                for name, color in zip(self.names, self.colors, strict=True)
            ]
        }


@dataclass(frozen=True)
class BandColors:
    """The colors of one band, or of three bands that are red, green and blue.

    Parameters
    ----------
    limits : tuple of (float, float)
        For each band, the values of the first and the last color.
    table : ndarray, optional
        The colors of one band, array (256, 3); None for three bands.
    name : str
        The name of the band, for the legend.
    resampling : str
        "bilinear" or "nearest".

    Examples
    --------
    >>> gray = BandColors(((0, 10),), np.repeat(np.arange(256, dtype="u1"), 3).reshape(-1, 3))
    >>> gray.paint(gray.prepare([np.array([[5, 20, -1]])], [(-1,)])).tolist()
    [[[128, 128, 128, 255], [255, 255, 255, 255], [0, 0, 0, 0]]]
    """

    limits: tuple[Limits, ...]
    table: NDArray[np.uint8] | None = None
    name: str = ""
    resampling: str = "bilinear"

    fill = np.nan

    def prepare(self, planes: Sequence[NDArray[Any]], nodata: Sequence[Sequence[float]]) -> NDArray[Any]:
        """Return the values as floats (band, y, x); pixels that are masked in any band are NaN."""
        dtype = np.result_type(np.float32, *(plane.dtype for plane in planes))
        values = np.empty((len(planes), *planes[0].shape), dtype)
        for plane, own, target in zip(planes, nodata, values, strict=True):
            target[...] = plane
            for number in own:
                target[plane == number] = np.nan
        if len(planes) > 1:
            values[:, np.isnan(values).any(axis=0)] = np.nan
        return values

    def paint(self, warped: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the pixels as an array (y, x, 4): red, green, blue and opacity."""
        found = np.zeros((*warped.shape[1:], 4), np.uint8)
        valid = ~np.isnan(warped).any(axis=0)
        levels = [
            _levels(plane[valid], low, high) for plane, (low, high) in zip(warped, self.limits, strict=True)
        ]
        colors = np.column_stack(levels) if self.table is None else self.table[levels[0]]
        found[valid] = np.column_stack((colors, np.full(len(colors), 255, np.uint8)))
        return found

    def legend(self) -> dict[str, Any]:
        """Return what the legend shows, for JSON."""
        if self.table is None:
            return {}
        ends = [f"{value:.4g}" for value in self.limits[0]]
        return {"band": self.name, "ends": ends, "ramp": [_hex(color) for color in self.table[::15]]}


def _levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale values to 0..255."""
    share = (values.astype(np.float64) - low) / ((high - low) or 1.0)
    levels: NDArray[np.uint8] = (np.clip(share, 0, 1) * (COLORS - 1) + 0.5).astype(np.uint8)
    return levels


def _hex(color: NDArray[np.uint8]) -> str:
    return "#" + color.tobytes().hex()


def png(pixels: NDArray[np.uint8]) -> bytes:
    r"""Encode pixels (y, x, 4) as a PNG image with 8 bits for red, green, blue and opacity.

    Examples
    --------
    >>> png(np.zeros((1, 1, 4), "uint8"))[:8]
    b'\x89PNG\r\n\x1a\n'
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 4 * width), np.uint8)  # each row begins with the number of its filter, 0
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 3)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
