"""The expected content of an export, computed by simple numpy code that does not use the package."""

from __future__ import annotations

import math

import numpy as np


def cut_patches(raster, *, patch, kernel, default, region=None, edge="drop", masked=None):
    """Return all stored patches of a (y, x) raster, and their proportions of masked pixels.

    `patch` and `kernel` are (width, height); `region` is (top, bottom, left, right). Masked pixels, and
    pixels outside the raster, are `default`.
    """
    height, width = raster.shape
    top, bottom, left, right = region or (0, height, 0, width)
    count = math.ceil if edge == "pad" else math.floor
    columns = count((right - left) / patch[0])
    rows = count((bottom - top) / patch[1])
    mx, my = kernel[0] // 2, kernel[1] // 2
    far = 4 * (max(patch) + max(kernel))
    if masked is None:
        masked = np.zeros(raster.shape, bool)
    invalid = np.pad(masked, far, constant_values=True)
    filled = np.where(invalid, default, np.pad(raster, far)).astype(raster.dtype)
    patches, proportions = [], []
    for row in range(rows):
        for column in range(columns):
            y = far + top + row * patch[1]
            x = far + left + column * patch[0]
            window = np.s_[y - my : y + patch[1] + my, x - mx : x + patch[0] + mx]
            patches.append(filled[window])
            proportions.append(invalid[window].mean())
    return patches, proportions
