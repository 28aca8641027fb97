"""Write a file together with its side files, such as ``.aux.xml``: all of them are replaced, or none."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from xee_tf.options import IfExists
from xee_tf.storage import (
    Earlier,
    Location,
    Staging,
    commit,
    look,
    recover,
    remove_leftovers,
    require_free,
    stage_local_file,
    storage_errors,
)

__all__ = ["geopackage_files", "geotiff_files", "no_side_files", "staged_file"]

SideFiles = Callable[[Location], Sequence[Location]]
"""Returns the files that readers use together with a file, which are replaced with it."""


def geotiff_files(file: Location) -> list[Location]:
    """Return the existing side files of a GeoTIFF.

    Other software writes them: metadata, overviews, masks, world files and RPCs. Beside another raster, they
    would be applied to its pixels.

    Examples
    --------
    >>> for name in ("a.tif", "a.tif.aux.xml", "a.tif.msk.ovr", "a.tfw", "a.prj", "a.tif.txt", "ab.tfw"):
    ...     Location.of(f"memory://sides/{name}").write_bytes(b"")
    >>> [each.name for each in geotiff_files(Location.of("memory://sides/a.tif"))]
    ['a.tfw', 'a.tif.aux.xml', 'a.tif.msk.ovr']
    """
    stem = re.escape(file.name.rpartition(".")[0])
    pattern = rf"{re.escape(file.name)}(\.(aux\.xml|ovr|msk))+|{stem}(\.(tfw|tfwx|tifw|tiffw|rpb)|_rpc\.txt)"
    return _matching(file, pattern)


def geopackage_files(file: Location) -> list[Location]:
    """Return the existing files with unsaved changes of a GeoPackage, which would destroy another one."""
    return _matching(file, rf"{re.escape(file.name)}-(wal|shm|journal)")


def no_side_files(file: Location) -> list[Location]:
    """Return no files."""
    return []


def _matching(file: Location, pattern: str) -> list[Location]:
    stem = file.parent.child(file.name.rpartition(".")[0])
    return [file.parent.child(name) for name in stem.listed() if re.fullmatch(pattern, name, re.IGNORECASE)]


@contextmanager
def staged_file(location: Location, if_exists: IfExists, side_files: SideFiles) -> Iterator[Path]:
    """Yield a local path to write, and put that file and its side files in place if the block succeeds.

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
    staging = Staging.begin(location)
    target = staging.destination
    recover(staging)
    remove_leftovers(target)
    require_free(target, if_exists)

    def existing() -> list[Location]:
        return [*([target] if target.exists() else []), *side_files(target)]

    earlier = Earlier(existing, look(target, existing()))
    try:
        if target.is_local:
            with storage_errors("write", target.url, left="Nothing was changed."):
                staging.sign()
            yield Path(staging.staged(target).path)
            new = [target.parent.child(each.name) for each in side_files(staging.staged(target))]
            commit(staging, [*new, target], earlier=earlier)
        else:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / target.name
                yield path
                _put(path, staging, earlier, side_files)
    except BaseException:
        staging.abort()
        raise


def _put(path: Path, staging: Staging, earlier: Earlier, side_files: SideFiles) -> None:
    """Copy a local file and its side files to an object store, and commit them."""
    target = staging.destination
    new = [target.parent.child(each.name) for each in side_files(Location(str(path)))]
    old = set(earlier.seen or ()) - {target.name}
    if not new and not old:  # a single object replaces another one at once
        staged, uploads = stage_local_file(staging, target, path)
        commit(staging, staged, uploads=uploads, earlier=earlier)
        return
    for each in (*new, target):
        staging.staged(each).put_file(path.with_name(each.name))
    commit(staging, [*new, target], earlier=earlier)
