"""Write a file together with its side files, such as ``.aux.xml``: all of them are replaced, or none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from xee_tf.options import IfExists
from xee_tf.signals import NOTHING_CHANGED, explain_interruption
from xee_tf.storage import Earlier, Location, Staging, begin, commit, stage_local_file, storage_errors

__all__ = ["geopackage_files", "geotiff_files", "no_side_files", "staged_file", "staged_run"]

_RASTERS = r"\.(tiff?|gtiff?|ntf|nitf|img|jp2|vrt|pix)"  # formats with world files or RPCs beside them

SideFiles = Callable[[Location], Sequence[Location]]
"""Returns the files that readers use together with a file, which are replaced with it."""


def geotiff_files(file: Location) -> list[Location]:
    """Return the existing side files of a GeoTIFF.

    Other software writes them: metadata, overviews, masks, world files and RPCs. Beside another raster, they
    would be applied to its pixels. World files and RPCs are not returned if they may belong to another raster
    whose name differs only in its extension: readers prefer the georeference inside a GeoTIFF.

    Examples
    --------
    >>> for name in ("a.tif", "a.tif.aux.xml", "a.tif.msk.ovr", "a.tfw", "a.prj", "a.tif.txt", "ab.tfw"):
    ...     Location.of(f"memory://sides/{name}").write_bytes(b"")
    >>> [each.name for each in geotiff_files(Location.of("memory://sides/a.tif"))]
    ['a.tfw', 'a.tif.aux.xml', 'a.tif.msk.ovr']
    """
    stem = file.name.rpartition(".")[0]
    pattern = rf"{re.escape(file.name)}(?i:(\.(aux\.xml|ovr|msk))+)"
    if all(each == file for each in _matching(file, rf"{re.escape(stem)}(?i:{_RASTERS})")):
        pattern += rf"|{re.escape(stem)}(?i:\.(tfw|tfwx|tifw|tiffw|rpb)|_rpc\.txt)"
    return _matching(file, pattern)


def geopackage_files(file: Location) -> list[Location]:
    """Return the existing files with unsaved changes of a GeoPackage, which would destroy another one."""
    return _matching(file, rf"{re.escape(file.name)}-(wal|shm|journal)")


def no_side_files(file: Location) -> list[Location]:
    """Return no files."""
    return []


def _matching(file: Location, pattern: str) -> list[Location]:
    stem = file.parent.child(file.name.rpartition(".")[0])
    return [
        file.parent.child(name)
        for name, info in stem.listed().items()
        if re.fullmatch(pattern, name) and info["type"] != "directory"
    ]


@contextmanager
def staged_file(location: Location, if_exists: IfExists, side_files: SideFiles) -> Iterator[Path]:
    """Yield a local path to write, and put that file and its side files in place if the block succeeds.

    If the block fails or is interrupted, its temporary files are deleted.

    Parameters
    ----------
    location : Location
        The destination.
    if_exists : {"error", "overwrite", "resume"}
        Whether an existing file may be replaced; this is checked at the beginning and at the end.
    side_files : callable
        Returns the existing side files of a file.

    Raises
    ------
    DestinationExistsError
        If the destination exists and may not be replaced, or was written by another run in the meantime.
    DestinationError
        If the file cannot be put in place. The old files are kept.

    Examples
    --------
    >>> file = Location.of("memory://staged/a.tif")
    >>> with staged_file(file, "error", geotiff_files) as path:
    ...     size = path.write_bytes(b"pixels")
    >>> file.read_bytes()
    b'pixels'
    """
    with staged_run(location, if_exists, side_files) as (_, local):
        yield Path(local.staged(location).path)


@contextmanager
def staged_run(
    location: Location, if_exists: IfExists, side_files: SideFiles
) -> Iterator[tuple[Staging, Staging]]:
    """Yield the run, and the run on a local disk that stages the file; see `staged_file`.

    Tasks may stage further files in both. For a local destination, they are the same.
    """

    def existing() -> list[Location]:
        return [*([location] if location.exists() else []), *side_files(location)]

    staging, earlier = begin(location, existing, if_exists)
    local = staging.on_disk()
    try:
        with storage_errors("write", location.url, left="Nothing was changed."):
            local.sign()
        file = local.staged(location)
        yield staging, local
        new = [location.parent.child(each.name) for each in side_files(file)]
        _commit(staging, local, new, earlier)
    except BaseException as error:
        staging.abort()
        if local != staging:
            local.abort()
        explain_interruption(error, NOTHING_CHANGED)
        raise
    if local != staging:
        local.remove()


def _commit(staging: Staging, local: Staging, new: Sequence[Location], earlier: Earlier) -> None:
    """Put a file and its new side files in place, which are staged on a local disk."""
    target = staging.destination
    old = set(earlier.seen or ()) - {target.name}
    if local != staging and not new and not old:  # a single object replaces another one at once
        staged, uploads = stage_local_file(staging, target, local.staged(target).path)
        commit(staging, staged, uploads=uploads, earlier=earlier)
        return
    if local != staging:
        for each in (*new, target):
            staging.staged(each).put_file(local.staged(each).path)
    commit(staging, [*new, target], earlier=earlier)
