"""The mixer and the manifest of an export, and whether they go with each other and with the shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xee_tf.errors import ManifestError, MissingShardError, MixerError, RecordError
from xee_tf.geometry import PatchGrid
from xee_tf.reading.find import Exported, find_export
from xee_tf.shards.access import Shard
from xee_tf.sidecars import (
    ImageManifest,
    ManifestShard,
    Mixer,
    TableManifest,
    parse_dimensions,
    read_manifest,
)
from xee_tf.sidecars.names import IMAGE_MANIFEST, MIXER, OLD_MANIFEST, has_prefix, prefix_of, shard_name
from xee_tf.storage import Location

__all__ = [
    "check_shard",
    "describe_export",
    "differing_keys",
    "listed_shards",
    "manifest_name",
    "match_shards",
]


def describe_export(
    source: Exported | Mixer, own_records: bool, storage_options: Mapping[str, Any] | None
) -> tuple[str, Mixer, ImageManifest | None, Location | None]:
    """What a user named: its name for errors, its mixer, its manifest if there is one, and where it is.

    Parameters
    ----------
    source : str, path-like, ExportResult or Mixer
    own_records : bool
        Whether the user names the shards: a manifest that does not go with the mixer is then ignored.
    storage_options : mapping or None
        Handed to fsspec.

    Raises
    ------
    MissingShardError, MixerError, OptionError
        If there is no export, or its mixer and manifest do not describe the same patches.
    """
    if isinstance(source, Mixer):
        return "the mixer", source, None, None
    location = find_export(source, storage_options)
    manifest = None
    if has_prefix(location):
        prefix = prefix_of(location)
        manifest = read_manifest(prefix.with_suffix(IMAGE_MANIFEST))
        if manifest is None and location.name.endswith(MIXER):
            old = prefix.with_suffix(OLD_MANIFEST)
            if old.exists():
                manifest = parse_dimensions(old.read_bytes().decode("utf-8", "replace"), str(old))
    if isinstance(manifest, TableManifest):
        raise ManifestError(f"{manifest_name(location)} is the manifest of a table, not of an image.")
    if location.name.endswith(IMAGE_MANIFEST):
        if manifest is None or manifest.grid is None:
            raise ManifestError(f"{location} does not exist, or does not describe the grid of an image.")
        return str(location), Mixer.from_grid(manifest.grid), manifest, location
    try:
        mixer = Mixer.read(location)
    except FileNotFoundError:
        raise MissingShardError(f"There is no mixer {location}.") from None
    if manifest is not None and manifest.grid is not None:
        wrong = differing_keys(mixer, manifest.grid)[:1]
        if wrong and not own_records:
            raise MixerError(
                f"{location} does not describe the export beside it: {wrong[0]} in "
                f"{manifest_name(location)}. Restore the mixer; if it is right, remove the manifest."
            )
        if wrong:
            manifest = None
    return str(location), mixer, manifest, location


def manifest_name(location: Location | None) -> str:
    """What the manifest of a mixer is called."""
    return "the manifest" if location is None else prefix_of(location).with_suffix(IMAGE_MANIFEST).name


def differing_keys(mixer: Mixer, grid: PatchGrid) -> list[str]:
    """Where the patches of a mixer are not those of a grid: key, value and what is expected.

    The CRS is not compared: that of a mixer may be edited.

    Examples
    --------
    >>> from xee_tf.geometry import Size
    >>> grid = PatchGrid(Size(x=64, y=64), Size(x=16, y=16), crs="EPSG:4326")
    >>> differing_keys(replace(Mixer.from_grid(grid), patches_per_row=2), grid)
    ['patchesPerRow is 2, but 4']
    """
    pairs = {
        "patchDimensions": (list(mixer.patch.xy), list(grid.patch.xy)),
        "patchesPerRow": (mixer.patches_per_row, grid.columns),
        "totalPatches": (mixer.total_patches, len(grid)),
    }
    wrong = [f"{key} is {found}, but {right}" for key, (found, right) in pairs.items() if found != right]
    matrix, expected = ([float(value) for value in tuple(each.affine)[:6]] for each in (mixer, grid))
    if not np.allclose(matrix, expected, rtol=1e-12, atol=0):
        wrong.append(f"doubleMatrix is {matrix}, but {expected}")
    return wrong


def listed_shards(location: Location, known: Sequence[ManifestShard]) -> list[Location]:
    """Where the shards that a manifest lists are, or would be, beside the mixer or manifest of an image."""
    prefix, compressed = prefix_of(location), known[0].name.endswith(".gz")
    return [prefix.with_suffix(shard_name(number, compressed)) for number in range(len(known))]


def match_shards(shards: Sequence[Shard], manifest: ImageManifest) -> list[Shard]:
    """The shards with what the manifest holds of them, if it fits.

    A shard that was compressed or inflated since has other bytes but the same records.
    """
    if not manifest.shards:
        return list(shards)
    if len(shards) != len(manifest.shards):
        raise RecordError(
            f"The manifest lists {len(manifest.shards)} shards, but {shards[0]} to {shards[-1]} are "
            f"{len(shards)}: they are of another export. If they are right, remove the manifest."
        )
    found = []
    for shard, known in zip(shards, manifest.shards, strict=True):
        check_shard(shard, known, "the manifest")
        starts = np.concatenate([[0], np.cumsum(known.run_records, dtype=np.int64)])
        described = len(known.run_crcs) > 0
        found.append(replace(shard, run_starts=starts, run_crcs=known.run_crcs) if described else shard)
    return found


def check_shard(shard: Shard, known: ManifestShard, manifest: str) -> None:
    """Refuse a file with other records than a manifest describes, or of another size.

    A file that another program compressed, or inflated, has a size of its own: its records are counted.

    Raises
    ------
    RecordError
        That names the file.
    """
    ours = known.same_kind(shard.location) and shard.access != "stream"
    if shard.records != known.records or (ours and shard.size != known.bytes):
        raise RecordError(
            f"{shard} holds {shard.records} records in {shard.size} bytes, but {manifest} describes "
            f"{known.records} in {known.bytes}: it is of another export, or was changed. If it is right, "
            "remove the manifest."
        )
