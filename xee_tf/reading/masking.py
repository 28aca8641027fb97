"""Default values of an export read as NaN again, where they can be told from valid values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xee_tf.dtypes import held_as
from xee_tf.errors import warn
from xee_tf.options import check_default_value
from xee_tf.sidecars import BandDimensions

__all__ = ["masked_values"]


def masked_values(
    bands: Sequence[BandDimensions],
    dtypes: Mapping[str, np.dtype[Any]],
    value: float,
    written: float | None = None,
) -> dict[str, float]:
    """The value of each band that means "masked"; bands that cannot hold it are left out, with a warning.

    Parameters
    ----------
    bands : sequence of BandDimensions
    dtypes : mapping from band to dtype
        Of the values in the records.
    value : number
        The default value that the user names.
    written : float, optional
        The default value of the export, by its manifest.

    Raises
    ------
    OptionError
        If it is not a number.

    Examples
    --------
    >>> bands = [BandDimensions("B4", "B4", 0, (), ())]
    >>> masked_values(bands, {"B4": np.dtype("float32")}, -9999)
    {'B4': -9999.0}
    """
    check_default_value(value, finite=False)
    found, unclear = {}, []
    for band in bands:
        held = held_as(value, dtypes[band.name])
        # A band whose type in the source could not hold the default value has another one in its place.
        replaced = written == value and band.default is not None and band.default != held
        if held is None or (replaced and not math.isnan(value)):
            unclear.append(band)
        else:
            found[band.name] = held
    if unclear and not math.isnan(value):
        each = ", ".join(
            f"{band.name!r} ({band.dtype or dtypes[band.name]}"
            + (f", {band.default:g} instead)" if written == value and band.default is not None else ")")
            for band in unclear
        )
        warn(
            f"default_value={value!r} masks nothing in {each}: the type cannot hold it, so masked pixels "
            "look like valid ones there. Export with a default_value that is in the range of every band."
        )
    return found
