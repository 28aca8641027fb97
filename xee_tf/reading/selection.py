"""Options that select bands or specify their depths."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from xee_tf.display import counted, quoted
from xee_tf.errors import OptionError, shorten
from xee_tf.options import did_you_mean, read_depths, read_names
from xee_tf.sidecars import ImageManifest, dim_lengths, distinct_dims

__all__ = ["check_depths", "choose_bands", "override_depths"]


def choose_bands(known: Sequence[str], chosen: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the chosen bands; all bands if the option is None."""
    if chosen is None:
        return tuple(known)
    names = read_names(chosen, "bands")
    for name in names:
        if name not in known:
            raise OptionError(
                f"Band {name!r} not found; available: {quoted(known)}.{did_you_mean(name, known)}"
            )
    return names


def check_depths(depths: Any, names: Collection[str]) -> dict[str, int]:
    """Check the option `tensor_depths` for bands with the given names."""
    if depths is None:
        return {}
    if not isinstance(depths, Mapping):
        raise OptionError(
            f"tensor_depths must be a mapping such as {{'ndvi': 3}}; got {shorten(repr(depths))}."
        )
    for name in depths:
        if name not in names:
            raise OptionError(
                f"tensor_depths contains {name!r}, which is not a band of these records; available: "
                f"{quoted(names)}."
            )
    return read_depths(depths)


def override_depths(manifest: ImageManifest, depths: Mapping[str, int]) -> ImageManifest:
    """Replace the depths of some bands of a manifest.

    Bands with an unchanged depth keep their dimensions.
    """
    features = [band.feature for band in manifest.bands]
    bands = []
    for band in manifest.bands:
        depth = depths.get(band.name, band.depth)
        collapsed = features.count(band.feature) > 1
        if collapsed and depth != band.depth:
            raise OptionError(
                f"Band {band.name!r} has {counted(band.depth, 'value')} per pixel, but tensor_depths "
                f"specifies {depth}. The depth of a band that was collapsed with others cannot be changed: "
                "omit it."
            )
        new = band.name in depths and not collapsed and (depth != band.depth or not band.dims)
        bands.append(replace(band, dims=("depth",), shape=(depth,)) if new else band)
    renamed = distinct_dims(bands)
    lengths = dim_lengths(renamed)
    coords = {dim: values for dim, values in manifest.coords.items() if lengths.get(dim) == len(values)}
    return replace(manifest, bands=renamed, coords=coords)
