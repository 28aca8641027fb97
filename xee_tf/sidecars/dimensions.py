"""What a mixer does not hold of array bands: their dimensions, coordinates, and which feature has them.

Earth Engine leaves that to the user's memory. xee_tf writes ``<prefix>-dimensions.json`` beside exports
that have array bands (our addition), so that reading restores them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xee_tf.errors import MixerError

__all__ = ["BandDimensions", "Dimensions", "distinct_dims", "label_steps", "step_names"]

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
    """

    name: str
    feature: str
    first: int
    dims: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Values a pixel."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Dimensions:
    """The bands of an export, with what their records cannot say.

    Parameters
    ----------
    record : {"Example", "SequenceExample"}
        A record for each patch, or for each pixel.
    bands : tuple of BandDimensions
    coords : mapping from dimension to ndarray
        Coordinates of the further dimensions: numbers, texts or datetime64[ns].
    fill : float
        What masked values are in the records.
    ragged : bool
        Whether masked steps were left out of the records: those that are there stand in front.

    Examples
    --------
    >>> time = np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]")
    >>> bands = (BandDimensions("ndvi", "ndvi", 0, ("time",), (2,)),)
    >>> found = Dimensions.parse(Dimensions("Example", bands, {"time": time}).text())
    >>> found.bands[0].dims, found.coords["time"][1]
    (('time',), np.datetime64('2020-06-01T00:00:00.000000000'))
    """

    record: Record
    bands: tuple[BandDimensions, ...]
    coords: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    fill: float = 0
    ragged: bool = False

    def text(self) -> str:
        """The JSON of the file."""
        document = {
            "record": self.record,
            "fill": self.fill,
            "ragged": self.ragged,
            "bands": [
                {
                    "name": band.name,
                    "feature": band.feature,
                    "first": band.first,
                    "dims": list(band.dims),
                    "shape": list(band.shape),
                }
                for band in self.bands
            ],
            "coords": {
                dim: {"dtype": values.dtype.str, "values": _plain(values)}
                for dim, values in self.coords.items()
                if values.dtype.kind in "iufbUM"
            },
        }
        return json.dumps(document, indent=2)

    @classmethod
    def parse(cls, text: str, source: str = "the file") -> Dimensions:
        """Read the JSON of the file.

        Raises
        ------
        MixerError
            If it is not what `text` makes.
        """
        try:
            document = json.loads(text)
            return cls(
                record=document["record"],
                bands=tuple(
                    BandDimensions(
                        band["name"],
                        band["feature"],
                        band["first"],
                        tuple(band["dims"]),
                        tuple(band["shape"]),
                    )
                    for band in document["bands"]
                ),
                coords={
                    dim: np.array(coord["values"], dtype=coord["dtype"])
                    for dim, coord in document["coords"].items()
                },
                fill=document["fill"],
                ragged=document.get("ragged", False),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MixerError(
                f"{source} does not say what array bands are like ({type(error).__name__}: {error}). "
                "Remove it to have their depths inferred."
            ) from error


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


def label_steps(values: NDArray[Any]) -> list[str]:
    """A short text for each step of a dimension: days where they tell them apart, else the time too.

    Examples
    --------
    >>> label_steps(np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]"))
    ['2020-05-01', '2020-06-01']
    >>> label_steps(np.array([0.45, 0.9], "f4")), label_steps(np.array(["VV", "VH"]))
    (['0.45', '0.9'], ['VV', 'VH'])
    """
    if values.dtype.kind == "M":
        for unit in ("D", "s"):
            labels = [str(value) for value in values.astype(f"datetime64[{unit}]")]
            if len(set(labels)) == len(labels):
                return labels
    return [str(value) for value in values]


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


def _plain(values: NDArray[Any]) -> list[Any]:
    return np.datetime_as_string(values).tolist() if values.dtype.kind == "M" else values.tolist()  # type: ignore[no-any-return]
