"""Read the mixer and the manifest of an export, and check that they describe the same patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from xee_tf.errors import ManifestError, MissingShardError, MixerError, RecordError, excerpt
from xee_tf.geometry import PatchGrid
from xee_tf.sidecars.documents import ShardInfo
from xee_tf.sidecars.find import Exported, find_export, require_missing
from xee_tf.sidecars.interrupted import require_whole
from xee_tf.sidecars.manifest import ImageManifest, TableManifest
from xee_tf.sidecars.manifest_files import parse_dimensions, read_manifest
from xee_tf.sidecars.mixer import Mixer, read_mixer
from xee_tf.sidecars.names import IMAGE_MANIFEST, MIXER, OLD_MANIFEST, destination_of, has_prefix, prefix_of
from xee_tf.sidecars.packing import matrix_of
from xee_tf.storage import Location

__all__ = ["describe_export", "differing_crs", "differing_keys", "manifest_name", "require_same"]


class Described(NamedTuple):
    """The mixer and the manifest of an export.

    Parameters
    ----------
    name : str
        The source, for error messages.
    mixer : Mixer
        Read from its file, or created from the grid of the manifest if the export has no mixer.
    manifest : ImageManifest or None
        The manifest, if the export has one.
    location : Location or None
        The file of the mixer or of the manifest; None for a `Mixer` object.
    listed : mapping from name to mapping
        The files beside it in an object store, as listed; empty on a local disk.
    """

    name: str
    mixer: Mixer
    manifest: ImageManifest | None
    location: Location | None
    listed: Mapping[str, Mapping[str, Any]] = {}


def describe_export(source: Exported | Mixer, storage_options: Mapping[str, Any] | None) -> Described:
    """Read the mixer and the manifest of an export; raise an error if they describe different patches."""
    if isinstance(source, Mixer):
        return Described("the mixer", source, None, None)
    try:
        return _describe(source, storage_options)
    except (MixerError, MissingShardError):  # perhaps one of the files was replaced after the other was read
        return _describe(source, storage_options)


def require_same(described: Described) -> None:
    """Raise an error if an export has been replaced, or is being replaced, since it was described.

    Readers call it after an error: an export whose files are replaced while they are read seems damaged.
    """
    location = described.location
    if location is None or not has_prefix(location):
        return
    require_whole(destination_of(location))
    try:
        now = _describe(location, location.storage_options)
    except (MixerError, MissingShardError):
        now = None
    if now is None or now.mixer != described.mixer or _files(now) != _files(described):
        raise RecordError(f"{destination_of(location)} was replaced while it was read: open it again.")


def _files(described: Described) -> list[ShardInfo]:
    return [] if described.manifest is None else [shard.file for shard in described.manifest.shards]


def _describe(source: Exported, storage_options: Mapping[str, Any] | None) -> Described:
    location = find_export(source, storage_options)
    manifest = None
    prefix = prefix_of(location)
    listed = prefix.listed() if has_prefix(location) and not location.is_local else {}

    def missing(file: Location) -> bool:
        return file.name not in listed if listed else not file.exists()

    def size(file: Location) -> int | None:
        found = listed.get(file.name, {}).get("size")
        return None if found is None else int(found)

    if has_prefix(location):
        file = prefix.with_suffix(IMAGE_MANIFEST)
        manifest = None if listed and missing(file) else read_manifest(file, size(file))
        old = prefix.with_suffix(OLD_MANIFEST)
        if manifest is None and location.name.endswith(MIXER) and not missing(old):
            manifest = parse_dimensions(old.read_bytes().decode("utf-8", "replace"), str(old))
    if isinstance(manifest, TableManifest):
        raise ManifestError(f"{manifest_name(location)} is the manifest of a table, not of an image.")
    if location.name.endswith(IMAGE_MANIFEST):
        if manifest is None:
            require_whole(destination_of(location))
        if manifest is None or manifest.grid is None:
            raise ManifestError(f"{location} does not exist, or does not describe the grid of an image.")
        return Described(str(location), Mixer.from_grid(manifest.grid), manifest, location, listed)
    try:
        mixer = read_mixer(location, size(location))
    except MissingShardError:
        require_missing(location)
        raise
    except MixerError as error:
        if manifest is None or manifest.grid is None:
            raise
        intact = manifest_name(location)
        raise MixerError(
            f"{error} Restore it, or delete it: the manifest, {intact}, describes the same grid."
        ) from error
    if manifest is not None and manifest.grid is not None:
        wrong = differing_keys(mixer, manifest.grid)
        if wrong:
            raise MixerError(
                f"{location} does not match the manifest of the export: {wrong[0]} in "
                f"{manifest_name(location)}. Restore the mixer; if it is correct, remove the manifest."
            )
    return Described(str(location), mixer, manifest, location, listed)


def manifest_name(location: Location | None) -> str:
    """Return the file name of the manifest that belongs to a mixer, for error messages."""
    return "the manifest" if location is None else prefix_of(location).with_suffix(IMAGE_MANIFEST).name


def differing_keys(mixer: Mixer, grid: PatchGrid) -> list[str]:
    """Describe how a mixer differs from a grid: key, value and expected value.

    The CRS is not compared: readers that need it call `differing_crs`.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from xee_tf.geometry import Size
    >>> grid = PatchGrid(Size(x=64, y=64), Size(x=16, y=16), crs="EPSG:4326")
    >>> differing_keys(replace(Mixer.from_grid(grid), patches_per_row=2), grid)
    ['patchesPerRow is 2, but 4']
    """
    pairs = {
        "patchDimensions": (list(mixer.patch.xy), list(grid.patch.xy)),
        "patchesPerRow": (mixer.patches_per_row, grid.patches_per_row),
        "totalPatches": (mixer.total_patches, len(grid)),
    }
    wrong = [f"{key} is {found}, but {right}" for key, (found, right) in pairs.items() if found != right]
    matrix, expected = (matrix_of(each.affine) for each in (mixer, grid))
    if not np.allclose(matrix, expected, rtol=1e-12, atol=0):
        wrong.append(f"doubleMatrix is {matrix}, but {expected}")
    return wrong


def differing_crs(found: str, right: str | None) -> str:
    """Describe how the CRS of a mixer differs from that of the manifest."""
    return f"crs is {excerpt(found)}, but {excerpt(right)}"
