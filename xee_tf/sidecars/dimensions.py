"""A band in the records of an export: its feature, its further dimensions, and what it was in the source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from numpy.typing import NDArray

from xee_tf.names import label_steps
from xee_tf.records import Kind

__all__ = ["BandDimensions", "Record", "distinct_dims", "step_names"]

Record = Literal["Example", "SequenceExample"]


@dataclass(frozen=True)
class BandDimensions:
    """One band in the records.

    Parameters
    ----------
    name : str
    feature : str
        The feature that holds it: its own, or the first band's where bands were collapsed.
    first : int
        The first of its steps in the feature.
    dims : tuple of str
        Its dimensions beside y and x; none for a scalar band.
    shape : tuple of int
        Their lengths.
    dtype : str, optional
        The numpy dtype that the band has in the source of the export ("int16"). None where it is not known,
        as in files of Earth Engine; the same holds for the following.
    kind : {"bytes", "float", "int64"}, optional
        The list that holds it.
    default : number, optional
        What stands in the records for masked values: the export's default value as the band's type holds it.
    nodata : tuple of numbers
        The values that mean "masked" in the source; NaN always does.
    units : str, optional
        The attribute of that name.
    """

    name: str
    feature: str
    first: int
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str | None = None
    kind: Kind | None = None
    default: float | None = None
    nodata: tuple[float, ...] = ()
    units: str | None = None

    @property
    def depth(self) -> int:
        """Values per pixel."""
        return math.prod(self.shape)


def distinct_dims(bands: Sequence[BandDimensions]) -> tuple[BandDimensions, ...]:
    """Bands whose dimensions of one name have one length: others get the length into their name.

    Examples
    --------
    >>> two = [BandDimensions(f"B{n}", f"B{n}", 0, ("time",), (n,)) for n in (3, 4)]
    >>> [band.dims for band in distinct_dims(two)], distinct_dims(two[:1])[0].dims
    ([('time_3',), ('time_4',)], ('time',))
    """
    lengths: dict[str, set[int]] = {}
    for band in bands:
        for dim, length in zip(band.dims, band.shape, strict=True):
            lengths.setdefault(dim, set()).add(length)
    return tuple(
        replace(
            band,
            dims=tuple(
                dim if len(lengths[dim]) == 1 else f"{dim}_{length}"
                for dim, length in zip(band.dims, band.shape, strict=True)
            ),
        )
        for band in bands
    )


def step_names(band: BandDimensions, coords: Mapping[str, NDArray[Any]]) -> list[str]:
    """What the steps of a band are called in a GeoTIFF, which has no further dimensions.

    Examples
    --------
    >>> step_names(BandDimensions("ndvi", "ndvi", 0, ("step",), (2,)), {})
    ['ndvi_1', 'ndvi_2']
    """
    labels = [
        label_steps(coords[dim]) if dim in coords else [str(number + 1) for number in range(length)]
        for dim, length in zip(band.dims, band.shape, strict=True)
    ]
    return ["_".join((band.name, *step)) for step in product(*labels)]
