"""The offsets and scales of normalized inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xee_tf.errors import OptionError, excerpt

__all__ = ["Normalize", "offsets_and_scales"]

Normalize = xr.Dataset | Mapping[str, tuple[float, float]]
"""The result of `xee_tf.band_statistics`, or the offset and the scale of each band."""


def offsets_and_scales(normalize: Normalize, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the offsets and the scales of bands, as an array (2, band).

    Raises
    ------
    OptionError
        If a band is missing, or its numbers are not finite, or its scale is 0.

    Examples
    --------
    >>> offsets_and_scales({"B4": (0.5, 2), "B3": (0, 1)}, ["B3", "B4"]).tolist()
    [[0.0, 0.5], [1.0, 2.0]]
    """
    numbers: dict[Any, Any]
    if isinstance(normalize, xr.Dataset):
        variables = set(map(str, normalize.variables))
        if not {"mean", "std", "band"} <= variables:
            raise OptionError(
                "normalize must be the result of xee_tf.band_statistics, with mean and std along band, or a "
                f"mapping of bands to (offset, scale); got a Dataset with {sorted(variables)}."
            )
        rows = zip(normalize["mean"].values, normalize["std"].values, strict=True)
        numbers = dict(zip(map(str, normalize["band"].values), rows, strict=True))
        # The values of a constant band are all its mean; 1 keeps them at 0.
        numbers = {name: (mean, std if std != 0 else 1.0) for name, (mean, std) in numbers.items()}
    elif isinstance(normalize, Mapping):
        numbers = dict(normalize.items())
    else:
        raise OptionError(
            "normalize must be the result of xee_tf.band_statistics, or a mapping of bands to (offset, "
            f"scale), such as {{'B4': (0.2, 0.1)}}; got {excerpt(normalize)}."
        )
    if missing := [name for name in dict.fromkeys(names) if name not in numbers]:
        raise OptionError(f"normalize lacks the inputs {missing}; it has {list(numbers)}. Add them.")
    try:
        found = np.array([numbers[name] for name in names], "float64").reshape(len(names), 2).T
    except (TypeError, ValueError):
        raise OptionError(
            f"normalize must have an offset and a scale for each band; got {excerpt(normalize)}."
        ) from None
    for name, offset, scale in zip(names, *found, strict=True):
        if not (math.isfinite(offset) and math.isfinite(scale) and np.float32(scale)):
            raise OptionError(
                f"normalize has the offset {offset:g} and the scale {scale:g} for {name!r}: both must be "
                "finite, and the scale not 0. A band that is masked everywhere has no statistics."
            )
    return found.astype("float32")
