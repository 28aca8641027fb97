"""The records of a patch (one Example, or a SequenceExample for each pixel), and the shard of a patch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.errors import OptionError, warn
from xee_tf.export.bands import BandPlan
from xee_tf.export.options import ExportOptions
from xee_tf.geometry import Size
from xee_tf.records import Encoded, Feature, RecordLayout, encode_records, kind_of
from xee_tf.sampling import PatchSelection

__all__ = ["PatchRecords", "PatchShards", "plan_records"]


@dataclass(frozen=True)
class PatchRecords:
    """How the patches of an export are written as records.

    Either one Example per patch, with a feature (channel, height, width) for each band; or one
    SequenceExample per pixel in row-major order, with scalar bands as context and array bands as feature
    lists.

    Parameters
    ----------
    layout : RecordLayout
        The features of a record.
    depths : tuple of int
        For SequenceExamples, the number of steps of each band; 0 for a scalar band.
    per_patch : int
        Number of records per patch: 1, or the number of pixels.
    drop_masked_steps : bool
        Whether masked steps are omitted.
    """

    layout: RecordLayout
    depths: tuple[int, ...] = ()
    per_patch: int = 1
    drop_masked_steps: bool = False

    @property
    def features(self) -> tuple[Feature, ...]:
        """All features, with those of the context first."""
        return self.layout.features

    @property
    def exact(self) -> bool:
        """Whether all records have the same number of bytes."""
        return self.layout.fixed_size and not self.drop_masked_steps

    @property
    def framed_size(self) -> int:
        """Size of the largest record with its framing in bytes."""
        return self.layout.framed_size([depth for depth in self.depths if depth])

    @property
    def patch_bytes(self) -> int:
        """Size of the records of a patch in bytes; the maximum if it varies."""
        return self.framed_size * self.per_patch

    def encode(
        self,
        bands: Sequence[NDArray[Any]],
        masks: Sequence[NDArray[np.bool_]] | None,
        keep: NDArray[np.bool_] | None,
        out: NDArray[np.uint8] | None = None,
    ) -> Encoded:
        """Encode patches as records.

        Parameters
        ----------
        bands : sequence of ndarray
            An array (n, depth, height, width) for each band.
        masks : sequence of ndarray of bool, optional
            Arrays of the same shapes, true where masked; used to drop masked steps.
        keep : ndarray of bool, optional
            Whether each of the n patches is written.
        out : ndarray of uint8, optional
            See `encode_records`.
        """
        if self.layout.sequences is None:
            return encode_records(self.layout, bands, keep, out=out)
        if keep is not None and not keep.all():
            bands = [band[keep] for band in bands]
            masks = None if masks is None else [mask[keep] for mask in masks]
        context = [_series(band)[:, 0] for band, depth in zip(bands, self.depths, strict=True) if not depth]
        sequences = [_series(band) for band, depth in zip(bands, self.depths, strict=True) if depth]
        kept = None
        if self.drop_masked_steps and masks is not None:
            kept = [~_series(mask) for mask, depth in zip(masks, self.depths, strict=True) if depth]
        return encode_records(self.layout, [*context, *sequences], keep_steps=kept, out=out)


@dataclass(frozen=True)
class PatchShards:
    """The assignment of patches to shards.

    The *place* of a patch is the number of patches before it in the export: the number of the patch, unless
    only some patches are exported.

    Parameters
    ----------
    patches : int
        Number of patches of the export, including those that may be omitted as masked.
    per_shard : int
        Number of patches per shard; the last shard may have fewer.
    selection : PatchSelection, optional
        The patches of the export. Default: all patches of the grid.

    Examples
    --------
    >>> shards = PatchShards(patches=10, per_shard=4)
    >>> len(shards), shards.places_of(2), list(shards.split(3, 9))
    (3, range(8, 10), [(0, 3, 4), (1, 4, 8), (2, 8, 9)])
    """

    patches: int
    per_shard: int
    selection: PatchSelection | None = None

    def __len__(self) -> int:
        return -(-self.patches // self.per_shard)

    def place(self, patch: int) -> int:
        """Return the place of a patch or, if it is not exported, of the next one that is."""
        if self.selection is None:
            return patch
        return int(np.searchsorted(self.selection.patches, patch))

    def number(self, place: int) -> int:
        """Return the number of the patch at a place."""
        return place if self.selection is None else int(self.selection.patches[place])

    def places_of(self, shard: int) -> range:
        """Return the places of the patches in a shard."""
        first = shard * self.per_shard
        return range(first, min(first + self.per_shard, self.patches))

    def split(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Split the patches ``begin..end`` by shard; yield the shard and its part ``begin..end``."""
        place, last = self.place(begin), self.place(end)
        while place < last:
            shard = place // self.per_shard
            place = min(last, (shard + 1) * self.per_shard)
            stop = end if place == last else self.number(place)
            yield shard, begin, stop
            begin = stop


def plan_records(bands: BandPlan, stored: Size, options: ExportOptions) -> PatchRecords:
    """Determine how the patches of an export are written as records.

    Parameters
    ----------
    bands : BandPlan
        How the bands are written.
    stored : Size
        Size of a stored patch in pixels, including its margin.
    options : ExportOptions
        The options of the export.

    Raises
    ------
    OptionError
        If `sequence_data` is combined with a kernel.
    """
    rules = bands.rules
    names = [band.name for band in bands.bands[: len(rules)]]
    scalar = [rule.depth == 1 and not band.dims for rule, band in zip(rules, bands.bands, strict=False)]
    kinds = [kind_of(rule.dtype, "band") for rule in rules]
    if not options.sequence_data:
        return PatchRecords(
            RecordLayout(
                tuple(
                    Feature(name, kind, rule.depth * stored.pixels, rule.dtype)
                    for name, kind, rule in zip(names, kinds, rules, strict=True)
                )
            )
        )
    if options.kernel_size.xy != (1, 1):
        raise OptionError(
            "sequence_data=True writes single pixels, which have no margins: omit "
            f"kernel_size={options.kernel_size.xy}."
        )
    if all(scalar):
        warn("sequence_data=True, but there are no array bands: the records have a context but no series.")
    features = [
        Feature(name, kind, 1, rule.dtype) for name, kind, rule in zip(names, kinds, rules, strict=True)
    ]
    return PatchRecords(
        layout=RecordLayout(
            context=tuple(each for each, is_scalar in zip(features, scalar, strict=True) if is_scalar),
            sequences=tuple(each for each, is_scalar in zip(features, scalar, strict=True) if not is_scalar),
        ),
        depths=tuple(0 if is_scalar else rule.depth for rule, is_scalar in zip(rules, scalar, strict=True)),
        per_patch=stored.pixels,
        drop_masked_steps=options.drop_masked_steps,
    )


def _series(band: NDArray[Any]) -> NDArray[Any]:
    """Reshape (n, depth, height, width) to pixels (n * height * width, depth)."""
    return np.moveaxis(band, 1, -1).reshape(-1, band.shape[1])
