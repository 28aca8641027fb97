"""The values that masked pixels have in records, as far as they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xee_tf.dtypes import convert_number
from xee_tf.errors import OptionError
from xee_tf.reading import Margins, OpenedExport
from xee_tf.statistics import BandStatistics

__all__ = ["masked_values", "unambiguous_values"]


def masked_values(
    exports: Sequence[OpenedExport], names: Sequence[str], default_value: float | None
) -> dict[str, float]:
    """Return the value of masked pixels in the records of each band for which it is known.

    Parameters
    ----------
    exports : sequence of OpenedExport
        Exports with compatible records.
    names : sequence of str
        The bands.
    default_value : float, optional
        The user's value. Default: the values in the manifests.
    """
    found: dict[str, float] = {}
    for name in names:
        each_value = [_value(export, name, default_value) for export in exports]
        values = {str(value): value for value in each_value}  # by text, because NaN is not equal to NaN
        if len(values) > 1:
            raise OptionError(
                f"Masked pixels of {name!r} have different values in these exports: "
                f"{', '.join(sorted(values))}. Pass default_value, or create a dataset for each export."
            )
        [value] = values.values()
        if value is not None:
            found[name] = value
    return found


def _value(export: OpenedExport, name: str, default_value: float | None) -> float | None:
    band = export.band(name)
    if default_value is None:
        return band.default
    [stored] = [feature.dtype for feature in export.layout.features if feature.name == band.feature]
    value = convert_number(default_value, np.dtype(stored))
    if band.default is not None and str(value) != str(convert_number(band.default, np.dtype(stored))):
        raise OptionError(
            f"default_value={default_value:g} is not the value of masked pixels of {name!r} in {export}: "
            f"according to the manifest, it is {band.default:g}. Omit default_value, or pass "
            f"{band.default:g} if no valid pixel has this value."
        )
    return value


def unambiguous_values(
    exports: Sequence[OpenedExport],
    names: Sequence[str],
    default_value: float | None,
    margins: Margins,
    option: str,
    harmless: Mapping[float, Any] | None = None,
) -> dict[str, float]:
    """Return the value of masked pixels of each band, which must not be a value of valid pixels.

    Bands without masked pixels, and columns of tables, are omitted.

    Parameters
    ----------
    exports, names, default_value : object
        See `masked_values`.
    margins : {"keep", "trim"}
        Whether margins are read, which may be outside the raster.
    option : str
        The option that needs the values, for error messages.
    harmless : mapping, optional
        Values that may also be those of valid pixels.

    Raises
    ------
    OptionError
        If the value is unknown, or is a value of valid pixels.
    """
    pixels = [name for name in names if _is_raster(exports[0], name)]
    found = masked_values(exports, pixels, default_value)
    if default_value is not None:
        return found
    for name in pixels:
        if name not in found:
            raise OptionError(
                f"{option} needs the value of masked pixels of {name!r}, but {exports[0]} has no manifest "
                "that contains it: pass default_value, the value in the records, such as default_value=0; or "
                "a value that does not occur if no pixel is masked."
            )
        if found[name] in (harmless or ()):
            continue
        statistics = [(each.statistics or {}).get(name) for each in exports]
        kept = margins == "keep" and any(max(each.content.margin.xy) for each in exports)
        if not kept and all(known is not None and not known.masked for known in statistics):
            del found[name]  # no pixel is masked
        elif any(_occurs(found[name], known, kept) for known in statistics):
            raise OptionError(
                f"{option}: masked pixels of {name!r} have the value {found[name]:g}, which valid pixels "
                "may have, too. Export with a default_value that is not a valid value, or pass "
                f"default_value={found[name]:g} if no valid pixel has this value."
            )
    return found


def _is_raster(export: OpenedExport, name: str) -> bool:
    """Return whether a band consists of pixels of a raster, which can be masked."""
    labels = export.band(name).feature in export.content.labels
    return not labels and (export.described or export.content.unit == "patch")


def _occurs(value: float, statistics: BandStatistics | None, margins: bool) -> bool:
    """Return whether valid pixels may have a value; with `margins`, also those in margins."""
    if statistics is None:  # a value other than 0 was chosen by the user
        return value == 0
    if statistics.classes is not None:
        return value in statistics.classes and (margins or statistics.classes[int(value)] > 0)
    return bool(statistics.count) and statistics.min <= value <= statistics.max
