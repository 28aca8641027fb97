"""An opened export: its records, what they hold, and the patches that they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xee_tf.dtypes import convert_number
from xee_tf.errors import warn
from xee_tf.geometry import PatchGrid, Size
from xee_tf.options import check_default_value
from xee_tf.reading.content import PIXEL, Content, choose_features
from xee_tf.records import RecordLayout
from xee_tf.shards import Shard
from xee_tf.sidecars import BandSpec

__all__ = ["Margins", "OpenedExport"]

Margins = Literal["trim", "keep"]
"""Whether the margins of patches are cut off."""


@dataclass(frozen=True, eq=False)
class OpenedExport:
    """The records of an export, or TFRecord files without a mixer; small and picklable.

    Parameters
    ----------
    content : Content
        What each record holds.
    bands : tuple of BandSpec
        The bands that are read.
    grid : PatchGrid
        The patches, with the margin that their records have. Without a mixer, that of a single record at no
        place.
    shards : tuple of Shard
        The files, in the order of the records.
    record_bytes : int
        Bytes of the first record and its framing.
    described : bool
        Whether a mixer or a manifest describes the records: they are complete, and were counted.
    patches : ndarray of int64, optional
        The number of the patch in every record, or in every group of `per_patch` records, where patches were
        dropped.
    masked : mapping from band to number
        The value in the records that is read as NaN.
    verify : bool
        Whether checksums of records are checked.
    share : bool
        Whether bands are read one by one, so that inflated bytes are worth keeping.
    source : str, optional
        The file that names the export: its mixer, or its manifest.
    """

    content: Content
    bands: tuple[BandSpec, ...]
    grid: PatchGrid
    shards: tuple[Shard, ...]
    record_bytes: int
    described: bool = True
    patches: npt.NDArray[np.int64] | None = None
    masked: Mapping[str, float] = field(default_factory=dict)
    verify: bool = True
    share: bool = True
    source: str | None = None

    def __str__(self) -> str:
        return self.shards[0].location.name

    @cached_property
    def layout(self) -> RecordLayout:
        """The features that hold the bands."""
        return choose_features(self.content.layout, list(dict.fromkeys(band.feature for band in self.bands)))

    @cached_property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """The dtype of each band: float32, int64 or uint8; a float type where values are masked."""
        stored = {feature.name: np.dtype(feature.dtype) for feature in self.layout.features}
        return {
            band.name: np.result_type(stored[band.feature], np.float32)
            if band.name in self.masked
            else stored[band.feature]
            for band in self.bands
        }

    @property
    def coords(self) -> dict[str, npt.NDArray[Any]]:
        """Coordinates of the bands' further dimensions."""
        known = self.content.coords
        return {dim: known[dim] for band in self.bands for dim in band.dims if dim in known}

    @property
    def per_patch(self) -> int:
        """Records for a patch: 1, or as many as it has pixels."""
        return self.grid.patch.pixels if self.content.unit == "pixel" else 1

    @property
    def stored(self) -> Size:
        """Pixels of a record, the margin of a patch included."""
        return PIXEL if self.content.unit == "pixel" else self.grid.stored

    @property
    def core(self) -> Size:
        """Pixels of a record without the margin."""
        return PIXEL if self.content.unit == "pixel" else self.grid.patch

    def area(self, margins: Margins) -> Size:
        """Pixels of a record that are read."""
        return self.core if margins == "trim" else self.stored

    @property
    def complete(self) -> bool:
        """Whether all records certainly have all features: those of images, and of tables by xee_tf."""
        return self.described or all(shard.same_features for shard in self.shards)

    @property
    def records(self) -> int | None:
        """Records in all shards; None where they were not counted."""
        return sum(shard.records for shard in self.shards) if self.complete else None

    @property
    def sequential(self) -> bool:
        """Whether records can be reached only through those in front of them."""
        return any(shard.access == "stream" for shard in self.shards)

    def band(self, name: str) -> BandSpec:
        """The band of a name."""
        return next(band for band in self.bands if band.name == name)

    def masking(self, value: float, written: float | None) -> OpenedExport:
        """The same export with a default value read as NaN, where the type of a band can hold it.

        A warning names the bands that cannot. `written` is the default value of the export, by its manifest.
        """
        check_default_value(value, finite=False)
        masked, unclear = {}, []
        for band in self.bands:
            held = convert_number(value, self.dtypes[band.name])
            # A band whose type in the source could not hold the default value has another one in its place.
            replaced = written == value and band.default is not None and band.default != held
            if held is None or (replaced and not math.isnan(value)):
                unclear.append(band)
            else:
                masked[band.name] = held
        if unclear and not math.isnan(value):
            each = ", ".join(
                f"{band.name!r} ({band.dtype or self.dtypes[band.name]}"
                + (f", {band.default:g} instead)" if written == value and band.default is not None else ")")
                for band in unclear
            )
            warn(
                f"default_value={value!r} masks nothing in {each}: the type cannot hold it, so masked pixels "
                "look like valid ones there. Export with a default_value that is in the range of every band."
            )
        return replace(self, masked=masked)
