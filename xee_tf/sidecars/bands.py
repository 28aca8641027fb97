"""Description of a band: extra dimensions, dtype, nodata, and the record feature that stores it."""

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
    """Description of a band in the records of an export, or in an input image of a model.

    Parameters
    ----------
    name : str
        Name of the band.
    dims : tuple of str
        Dimensions other than y and x; empty for a scalar band.
    shape : tuple of int
        Lengths of `dims`.
    feature : str, optional
        The feature that stores the band. Default: the band's name. If bands were collapsed, the name of the
        first band.
    first : int
        Index of the band's first step in the feature.
    dtype : str, optional
        The numpy dtype of the band in its source, for example "int16". None if it is unknown, as for files
        from Earth Engine; this also applies to the following parameters.
    kind : {"bytes", "float", "int64"}, optional
        The kind of list that stores the band.
    default : number, optional
        The value of masked pixels in records: the default value of the export converted to the dtype of the
        band.
    nodata : tuple of numbers
        The values that mean "masked" in the source. NaN is always masked.
    units : str, optional
        The ``units`` attribute.
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
    """Return the extra dimensions of bands and their lengths; see `distinct_dims`."""
    return {dim: length for band in bands for dim, length in zip(band.dims, band.shape, strict=True)}


def distinct_dims(bands: Sequence[BandSpec]) -> tuple[BandSpec, ...]:
    """Make dimension names unique: append the length to names that occur with different lengths.

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
    """Return names for the steps of a band as separate bands of a GeoTIFF, which has no extra dimensions.

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
