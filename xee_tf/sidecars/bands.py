"""A band: its further dimensions, its type and nodata, and the feature of a record that holds it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from numpy.typing import NDArray

from xee_tf.labels import label_steps
from xee_tf.records import Kind

__all__ = ["BandSpec", "Record", "dim_lengths", "distinct_dims", "step_names"]

Record = Literal["Example", "SequenceExample"]


@dataclass(frozen=True)
class BandSpec:
    """What a band is: in the records of an export, or in an image that a model sees or gives.

    Parameters
    ----------
    name : str
    dims : tuple of str
        Its dimensions beside y and x; none for a scalar band.
    shape : tuple of int
        Their lengths.
    feature : str, optional
        The feature that holds it: its own (default), or the first band's where bands were collapsed.
    first : int
        The first of its steps in the feature.
    dtype : str, optional
        The numpy dtype that the band has in its source ("int16"). None where it is not known, as in files of
        Earth Engine; the same holds for the following.
    kind : {"bytes", "float", "int64"}, optional
        The list that holds it.
    default : number, optional
        What stands for masked values: in records the export's default value as the band's type holds it, in
        predictions ``_FillValue``. None in predictions where nothing can be masked.
    nodata : tuple of numbers
        The values that mean "masked" in the source; NaN always does.
    units : str, optional
        The attribute of that name.
    """

    name: str
    dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    feature: str = ""
    first: int = 0
    dtype: str | None = None
    kind: Kind | None = None
    default: float | None = None
    nodata: tuple[float, ...] = ()
    units: str | None = None

    def __post_init__(self) -> None:
        if not self.feature:
            object.__setattr__(self, "feature", self.name)

    @property
    def depth(self) -> int:
        """Values per pixel."""
        return math.prod(self.shape)


def dim_lengths(bands: Iterable[BandSpec]) -> dict[str, int]:
    """The further dimensions of bands, and how long they are; see `distinct_dims`."""
    return {dim: length for band in bands for dim, length in zip(band.dims, band.shape, strict=True)}


def distinct_dims(bands: Sequence[BandSpec]) -> tuple[BandSpec, ...]:
    """Bands whose dimensions of one name have one length: others get the length into their name.

    Examples
    --------
    >>> two = [BandSpec(f"B{n}", ("time",), (n,)) for n in (3, 4)]
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


def step_names(band: BandSpec, coords: Mapping[str, NDArray[Any]]) -> list[str]:
    """What the steps of a band are called in a GeoTIFF, which has no further dimensions.

    Examples
    --------
    >>> step_names(BandSpec("ndvi", ("step",), (2,)), {})
    ['ndvi_1', 'ndvi_2']
    """
    labels = [
        label_steps(coords[dim]) if dim in coords else [str(number + 1) for number in range(length)]
        for dim, length in zip(band.dims, band.shape, strict=True)
    ]
    return ["_".join((band.name, *step)) for step in product(*labels)]
