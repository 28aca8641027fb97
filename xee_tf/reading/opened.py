"""An opened export: its shards, the content of their records, and the patches that they belong to."""

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
from xee_tf.statistics import BandStatistics

__all__ = ["Margins", "OpenedExport"]

Margins = Literal["trim", "keep"]
"""Whether to remove the margins of patches."""


@dataclass(frozen=True, eq=False)
class OpenedExport:
    """An export, or TFRecord files without a mixer; small and picklable.

    Parameters
    ----------
    content : Content
        The content of each record.
    bands : tuple of BandSpec
        The bands to read.
    grid : PatchGrid
        The patches, with the margin of the records. Without a mixer, a single patch without georeference.
    shards : tuple of Shard
        The files, in the order of the records.
    record_bytes : int
        Size of the first record and its framing in bytes.
    described : bool
        Whether a mixer or a manifest describes the records: all records have all features, and their number
        was checked.
    patches : ndarray of int64, optional
        If patches were dropped, the patch index of each record, or of each group of `records_per_patch`
        records.
    masked : mapping from band to number
        Stored values to read as NaN.
    verify : bool
        Whether to verify the checksums of records.
    share : bool
        Whether bands are read one by one, so that decompressed bytes are kept for the next band.
    source : str, optional
        The mixer, or else the manifest.
    restore_dtypes : bool
        Whether to convert stored integers to the dtype of their band.
    written_crs : str, optional
        The CRS in the manifest, unless the user specified another one.
    statistics : mapping from band to BandStatistics, optional
        Statistics of the bands, if the export has them.
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
    restore_dtypes: bool = False
    written_crs: str | None = None
    statistics: Mapping[str, BandStatistics] | None = None

    def __str__(self) -> str:
        return self.shards[0].location.name

    @cached_property
    def layout(self) -> RecordLayout:
        """The features that store the bands to read."""
        return choose_features(self.content.layout, list(dict.fromkeys(band.feature for band in self.bands)))

    @cached_property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """The dtype of each band as it is read; a float dtype if values are masked."""
        stored = {feature.name: np.dtype(feature.dtype) for feature in self.layout.features}
        dtypes = {band.name: self._unmasked_dtype(band, stored[band.feature]) for band in self.bands}
        return {
            name: np.result_type(dtype, np.float32) if name in self.masked else dtype
            for name, dtype in dtypes.items()
        }

    def _unmasked_dtype(self, band: BandSpec, stored: np.dtype[Any]) -> np.dtype[Any]:
        if self.restore_dtypes and band.dtype is not None and stored.kind == "i":
            source = np.dtype(band.dtype)
            if source.kind in "iu":
                return source
        return stored

    @property
    def coords(self) -> dict[str, npt.NDArray[Any]]:
        """Coordinates of the extra dimensions of the bands."""
        known = self.content.coords
        return {dim: known[dim] for band in self.bands for dim in band.dims if dim in known}

    @property
    def records_per_patch(self) -> int:
        """Number of records per patch: 1, or the number of its pixels."""
        return self.grid.patch.pixels if self.content.unit == "pixel" else 1

    @property
    def stored(self) -> Size:
        """Size of a record in pixels, including the margin of a patch."""
        return PIXEL if self.content.unit == "pixel" else self.grid.stored

    @property
    def core(self) -> Size:
        """Size of a record in pixels, without the margin of a patch."""
        return PIXEL if self.content.unit == "pixel" else self.grid.patch

    def area(self, margins: Margins) -> Size:
        """Return the size of a record in pixels, with or without the margin of a patch."""
        return self.core if margins == "trim" else self.stored

    @property
    def complete(self) -> bool:
        """Whether all records are known to have all features, as in images, and in tables from xee_tf."""
        return self.described or all(shard.same_features for shard in self.shards)

    @property
    def records(self) -> int | None:
        """Number of records in all shards; None if they were not counted."""
        return sum(shard.records for shard in self.shards) if self.complete else None

    @property
    def sequential(self) -> bool:
        """Whether a record can only be reached by decompressing all records before it."""
        return any(shard.access == "stream" for shard in self.shards)

    def band(self, name: str) -> BandSpec:
        """Return the band with the given name."""
        return self._bands_by_name[name]

    @cached_property
    def _bands_by_name(self) -> dict[str, BandSpec]:
        return {band.name: band for band in self.bands}

    def mask_default_value(self, value: float, written: float | None) -> OpenedExport:
        """Return the export with a default value read as NaN, in bands whose dtype can represent it.

        A warning lists the other bands. `written` is the default value of the export in its manifest.
        """
        check_default_value(value, finite=False)
        masked, unclear = {}, []
        for band in self.bands:
            held = convert_number(value, self.dtypes[band.name])
            # If the dtype of the source could not represent the default value, another value was written.
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
                f"default_value={value!r} masks no pixels of {each}: the dtype cannot represent it, so "
                "masked pixels cannot be distinguished from valid ones. Export with a default_value in the "
                "range of every band."
            )
        return replace(self, masked=masked)
