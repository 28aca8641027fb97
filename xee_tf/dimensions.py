"""What a mixer does not hold of array bands: their dimensions, coordinates, and which feature has them.

Earth Engine leaves that to the user's memory. xee_tf writes ``<prefix>-dimensions.json`` beside exports
that have array bands (our addition), so that reading restores them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xee_tf.errors import MixerError

__all__ = ["BandDimensions", "Dimensions"]

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

    def text(self) -> str:
        """The JSON of the file."""
        document = {
            "record": self.record,
            "fill": self.fill,
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
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MixerError(
                f"{source} does not say what array bands are like ({type(error).__name__}: {error}). "
                "Remove it to have their depths inferred."
            ) from error


def _plain(values: NDArray[Any]) -> list[Any]:
    return np.datetime_as_string(values).tolist() if values.dtype.kind == "M" else values.tolist()  # type: ignore[no-any-return]
