"""What a patch becomes: one Example, or a SequenceExample for each of its pixels; and in which shard."""

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

__all__ = ["PatchRecords", "PatchShards", "records_of"]


@dataclass(frozen=True)
class PatchRecords:
    """What the patches of an export become.

    An Example a patch, a feature for each band (channel, height, width); or a SequenceExample a pixel,
    row-major, scalar bands as context and array bands as feature lists.

    Parameters
    ----------
    layout : RecordLayout
    depths : tuple of int
        Of pixels: the steps of each band; 0 for a scalar band.
    per_patch : int
        Records of a patch: 1, or as many as it has pixels.
    drop_masked_steps : bool
        Leave masked steps out of their series.
    """

    layout: RecordLayout
    depths: tuple[int, ...] = ()
    per_patch: int = 1
    drop_masked_steps: bool = False

    @property
    def features(self) -> tuple[Feature, ...]:
        """All features, those of the context first."""
        return self.layout.features

    @property
    def exact(self) -> bool:
        """Whether all records have the same number of bytes."""
        return self.layout.fixed_size and not self.drop_masked_steps

    @property
    def framed_size(self) -> int:
        """Bytes of the largest record with its framing."""
        return self.layout.framed_size([depth for depth in self.depths if depth])

    def encode(
        self,
        bands: Sequence[NDArray[Any]],
        masks: Sequence[NDArray[np.bool_]] | None,
        keep: NDArray[np.bool_] | None,
    ) -> Encoded:
        """Records of patches (n, depth, height, width), one array a band."""
        if self.layout.sequences is None:
            return encode_records(self.layout, bands, keep)
        if keep is not None and not keep.all():
            bands = [band[keep] for band in bands]
            masks = None if masks is None else [mask[keep] for mask in masks]
        context = [_series(band)[:, 0] for band, depth in zip(bands, self.depths, strict=True) if not depth]
        sequences = [_series(band) for band, depth in zip(bands, self.depths, strict=True) if depth]
        kept = None
        if self.drop_masked_steps and masks is not None:
            kept = [~_series(mask) for mask, depth in zip(masks, self.depths, strict=True) if depth]
        return encode_records(self.layout, [*context, *sequences], keep_steps=kept)


@dataclass(frozen=True)
class PatchShards:
    """Which patches are in which shard.

    Parameters
    ----------
    patches : int
        Patches of the export, those that may be left out as masked included.
    per_shard : int
        Patches of every shard but the last one, which may have fewer.

    Examples
    --------
    >>> shards = PatchShards(patches=10, per_shard=4)
    >>> len(shards), shards.patches_of(2), list(shards.split(3, 9))
    (3, range(8, 10), [(0, 3, 4), (1, 4, 8), (2, 8, 9)])
    """

    patches: int
    per_shard: int

    def __len__(self) -> int:
        return -(-self.patches // self.per_shard)

    def patches_of(self, shard: int) -> range:
        """The numbers of the patches of a shard."""
        first = shard * self.per_shard
        return range(first, min(first + self.per_shard, self.patches))

    def split(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The patches ``begin..end`` by shard: its number, the first patch, the one behind the last."""
        while begin < end:
            shard = begin // self.per_shard
            stop = min(end, (shard + 1) * self.per_shard)
            yield shard, begin, stop
            begin = stop


def records_of(bands: BandPlan, stored: Size, options: ExportOptions) -> PatchRecords:
    """What the patches of an export become.

    Parameters
    ----------
    bands : BandPlan
    stored : Size
        Pixels of a stored patch.
    options : ExportOptions

    Raises
    ------
    OptionError
        If pixels are asked for, and a kernel.
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
            "sequence_data=True writes pixels, which have no margins: leave "
            f"kernel_size={options.kernel_size.xy} out."
        )
    if all(scalar):
        warn("sequence_data=True, but there is no array band: the records have a context and no series.")
    features = [
        Feature(name, kind, 1, rule.dtype) for name, kind, rule in zip(names, kinds, rules, strict=True)
    ]
    return PatchRecords(
        layout=RecordLayout(
            context=tuple(feature for feature, one in zip(features, scalar, strict=True) if one),
            sequences=tuple(feature for feature, one in zip(features, scalar, strict=True) if not one),
        ),
        depths=tuple(0 if one else rule.depth for rule, one in zip(rules, scalar, strict=True)),
        per_patch=stored.pixels,
        drop_masked_steps=options.drop_masked_steps,
    )


def _series(band: NDArray[Any]) -> NDArray[Any]:
    """(n, depth, height, width) as pixels (n * height * width, depth)."""
    return np.moveaxis(band, 1, -1).reshape(-1, band.shape[1])
