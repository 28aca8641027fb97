"""Choose the patches of an export: those of its sample and of the sides of its split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, cast

import numpy as np
import xarray as xr

from xee_tf.errors import OptionError, shorten
from xee_tf.export.options import ExportSource
from xee_tf.geometry import PatchGrid
from xee_tf.georef import GeoRef, write_georef
from xee_tf.options import did_you_mean, is_number
from xee_tf.sampling import (
    PatchBlock,
    PatchSelection,
    PatchSplit,
    check_shares,
    check_side_names,
    on_grid,
    require_margin,
    require_no_common_pixel,
    sample_patches,
    split_patches,
)

__all__ = ["PatchChoice"]


class _Sample(TypedDict, total=False):
    """The options of `sample_patches` that `sample` may contain."""

    n: float | Mapping[Any, int]
    polygons: Any
    all_touched: bool
    per_block: int
    block: PatchBlock
    class_band: xr.DataArray  # or the name of a band of the image


@dataclass(frozen=True, eq=False)
class PatchChoice:
    """How the patches of an export are chosen; see the options of `ExportSource` from `sample` to `seed`.

    Parameters
    ----------
    sample : mapping or PatchSelection
        The options of `sample_patches`; empty to keep all patches.
    split : mapping
        Proportions or selections of the sides; empty for a single export.
    block : int or (width, height), optional
        Size of the blocks of a split.
    seed : int
        The seed of both.
    """

    sample: _Sample | PatchSelection = field(default_factory=_Sample)
    split: Mapping[str, Any] = field(default_factory=dict)
    block: PatchBlock | None = None
    seed: int = 0

    @classmethod
    def of(cls, source: ExportSource, dataset: xr.Dataset, georef: GeoRef) -> PatchChoice | None:
        """Check the options, without reading pixels; return None if all patches are written."""
        if source.split is None and source.split_block is not None:
            raise OptionError(
                "split_block is only for split: pass split={'train': 0.8, 'test': 0.2}, or omit it."
            )
        if source.sample is None and source.split is None:
            return None
        sample = _sample(source.sample)
        if isinstance(sample, dict) and isinstance(band := sample.get("class_band"), str):
            if band not in dataset:
                raise OptionError(
                    f"class_band={band!r} in sample is not a variable of the image; available: "
                    f"{list(dataset)}."
                )
            labels = write_georef(dataset[band], georef, georef.x_dim, georef.y_dim)
            sample["class_band"] = labels.rename(band)
        return cls(sample, _split(source), source.split_block, source.seed)

    @property
    def sides(self) -> Sequence[str]:
        """The names of the sides, in order; a single empty name if there is no split."""
        return tuple(self.split) or ("",)

    def __call__(self, grid: PatchGrid, progress: bool = False) -> Mapping[str, PatchSelection]:
        """Return the patches of each side; reads the band of labels, if there is one.

        With a split, the result is a `PatchSplit`.
        """
        if isinstance(self.sample, PatchSelection):
            chosen = on_grid(self.sample, grid, "sample")
            require_margin(self.sample.grid, grid, "sample")
        elif self.sample:
            chosen = sample_patches(grid, **self.sample, seed=self.seed, progress=progress)
        else:
            chosen = PatchSelection(grid, np.arange(len(grid)))
        if not self.split:
            return {"": _not_empty(chosen, "sample")}
        if all(map(is_number, self.split.values())):
            return split_patches(chosen, self.split, block=self.block, seed=self.seed)
        found = {}
        for side, given in self.split.items():
            own = on_grid(given, grid, f"split[{side!r}]")
            require_margin(given.grid, grid, f"split[{side!r}]")
            found[side] = _not_empty(_common(own, chosen), f"split[{side!r}]")
        require_no_common_pixel(found, "split")
        lost = PatchSelection(grid, np.empty(0, np.int64))
        if isinstance(self.split, PatchSplit):
            lost = _common(on_grid(self.split.lost, grid, "split"), chosen)
        return PatchSplit(grid, found, lost)


def _sample(given: Any) -> Any:
    """Return the sample as options of `sample_patches`, or a selection."""
    if given is None or isinstance(given, PatchSelection):
        return {} if given is None else given
    if is_number(given):
        return {"n": given}
    if not isinstance(given, Mapping) or not given:
        raise OptionError(
            "sample must be a number of patches, such as 1000, a proportion, such as 0.1, a PatchSelection, "
            "or a mapping of options of xee_tf.sample_patches, such as {'n': 9, 'class_band': 'cover'}; got "
            f"{shorten(repr(given))}."
        )
    known = list(_Sample.__annotations__)
    for key in given:
        if key not in known:
            raise OptionError(
                f"sample has the unknown option {key!r}; available: {known}.{did_you_mean(str(key), known)}"
            )
    return dict(given)


def _split(source: ExportSource) -> Mapping[str, Any]:
    """Return the proportions or the selections of the sides."""
    given: Any = source.split
    if given is None:
        return {}
    if isinstance(given, Mapping) and given and all(isinstance(v, PatchSelection) for v in given.values()):
        if source.split_block is not None:
            raise OptionError(
                "split_block is only for proportions: a split that was made by xee_tf.split_patches has its "
                "blocks. Omit it."
            )
        check_side_names(given, "split")
    else:
        check_shares(given, "split")
    return cast("Mapping[str, Any]", given)


def _common(one: PatchSelection, other: PatchSelection) -> PatchSelection:
    return PatchSelection(one.grid, np.intersect1d(one.patches, other.patches))


def _not_empty(chosen: PatchSelection, name: str) -> PatchSelection:
    if not len(chosen):
        raise OptionError(f"{name} selects no patches: select at least one.")
    return chosen
