"""Names and colors of the values of class maps: GDAL's color tables and category names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import xarray as xr

from xee_tf.classes import Labels, find_labels
from xee_tf.display import counted, quoted
from xee_tf.dtypes import convert_number
from xee_tf.errors import OptionError, warn
from xee_tf.options import is_number
from xee_tf.upload.cog.overviews import Resampling

__all__ = ["add_category_names", "color_table", "encoded_classes", "require_no_means", "warn_of_lost_colors"]

_LARGEST = 65_535


def color_table(labels: Sequence[Labels | None], dtype: np.dtype[Any]) -> dict[int, tuple[int, ...]]:
    """Return the colors of the values of a GeoTIFF; only a file with one band of uint8 or uint16 has them.

    Examples
    --------
    >>> color_table([Labels({1: "water"}, {1: (0, 0, 255)})], np.dtype("uint8"))
    {1: (0, 0, 255)}
    """
    if len(labels) != 1 or labels[0] is None or dtype not in (np.uint8, np.uint16):
        return {}
    largest = np.iinfo(dtype).max
    return {value: color for value, color in labels[0].colors.items() if 0 <= value <= largest}


def warn_of_lost_colors(
    labels: Mapping[str, Labels], of_bands: Sequence[Labels | None], dtype: np.dtype[Any]
) -> None:
    """Warn if some values have colors and the GeoTIFF has no color table."""
    painted = [name for name, each in labels.items() if each.colors]
    if painted and not color_table(of_bands, dtype):
        warn(
            f"The colors of {quoted(painted)} are not written: only a GeoTIFF of one band of uint8 or "
            f"uint16 has a color table, and this one has {counted(len(of_bands), 'band')} of {dtype}. Write "
            "each map to another file, as uint8 or uint16."
        )


def encoded_classes(band: xr.DataArray) -> tuple[np.dtype[Any], int] | None:
    """Return the integer dtype and nodata value of a map of classes that xarray decoded; None for others.

    xarray decodes integers with ``_FillValue`` to floats with NaN.

    Examples
    --------
    >>> attrs = {"flag_values": [1, 2], "flag_meanings": "forest water"}
    >>> band = xr.DataArray([1.0, np.nan], attrs=attrs)
    >>> band.encoding = {"dtype": np.dtype("uint8"), "_FillValue": np.uint8(0)}
    >>> encoded_classes(band), encoded_classes(band.drop_attrs())
    ((dtype('uint8'), 0), None)
    """
    encoding = band.encoding
    if band.dtype.kind != "f" or find_labels(band.attrs) is None:
        return None
    if encoding.keys() & {"scale_factor", "add_offset", "_Unsigned"} or "dtype" not in encoding:
        return None
    dtype, nodata = np.dtype(encoding["dtype"]), encoding.get("_FillValue")
    fill = convert_number(nodata, dtype) if dtype.kind in "iu" and is_number(nodata) else None
    return None if fill is None else (dtype, int(fill))


def add_category_names(path: Path, labels: Sequence[Labels | None]) -> None:
    """Write the names of the values of each band to GDAL's ``.aux.xml`` file of a GeoTIFF, which may exist.

    A GeoTIFF itself has no place for them that GDAL reads.
    """
    named = {
        number: each.names
        for number, each in enumerate(labels, start=1)
        if each is not None and all(0 <= value <= _LARGEST for value in each.names)
    }
    if not named:
        return
    file = path.with_name(f"{path.name}.aux.xml")
    root = ElementTree.fromstring(file.read_bytes()) if file.exists() else ElementTree.Element("PAMDataset")
    for number, names in named.items():
        band = ElementTree.SubElement(root, "PAMRasterBand", band=str(number))
        categories = ElementTree.SubElement(band, "CategoryNames")
        for value in range(max(names) + 1):  # their positions are the values
            ElementTree.SubElement(categories, "Category").text = _xml_text(names.get(value, ""))
    ElementTree.indent(root)
    file.write_bytes(ElementTree.tostring(root, encoding="utf-8"))


def _xml_text(name: str) -> str:
    """Return a name without characters that XML does not allow."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "?", name)


def require_no_means(methods: Mapping[str, Resampling], labels: Mapping[str, Labels]) -> None:
    """Raise an error if overviews would have means of the numbers of classes."""
    if means := [name for name, method in methods.items() if method == "mean" and name in labels]:
        fixed: dict[str, Resampling] = {**methods, **dict.fromkeys(means, "mode")}
        fix = "'mode'" if set(fixed.values()) == {"mode"} else repr(fixed)
        source = "its attribute" if len(means) == 1 else "their attributes"
        raise OptionError(
            f"overview_resampling is 'mean', but the values of {quoted(means)} are classes, according to "
            f"{source} flag_values, and the mean of their numbers is another class. Pass {fix}."
        )
