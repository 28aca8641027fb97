"""Keep the records of a dataset in memory or in files."""

from __future__ import annotations

from collections.abc import Sequence
from glob import escape, glob
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.errors import OptionError, shorten
from xee_tf.shards import Shard
from xee_tf.storage import Location

__all__ = ["cache_files", "read_cache"]


def read_cache(cache: Any, name: str = "cache") -> bool | str:
    """Parse the option `cache`: True, False, or a local path in a folder that exists."""
    if isinstance(cache, bool | np.bool_):
        return bool(cache)
    if isinstance(cache, int | float) or cache is None:
        raise OptionError(f"{name} must be True, False or the path of a file; got {shorten(repr(cache))}.")
    location = Location.of(cache)
    if not location.is_local:
        raise OptionError(f"{name}={location.url!r} must be a path on a local disk.")
    if not location.parent.exists():
        raise OptionError(
            f"{name}={location.path!r}: the folder {location.parent.path} does not exist. Create it."
        )
    return location.path


def cache_files(
    path: str, shards: Sequence[Shard], chosen: Sequence[NDArray[np.int64]] | None = None
) -> list[str]:
    """Return the path of the cache of each shard, which depends on the version of the file.

    A cache of another export, of files that were replaced, or of other records is therefore never read.
    `chosen` are the numbers of the records to keep of each shard, if not all are kept.
    """
    parts = [b""] * len(shards) if chosen is None else [numbers.tobytes() for numbers in chosen]
    paths = []
    for shard, part in zip(shards, parts, strict=True):
        version = repr((shard.identity, shard.crc32c, shard.records)).encode()
        paths.append(f"{path}-{sha256(version + part).hexdigest()[:16]}")
    _require_unlocked(path, paths)
    return paths


def _require_unlocked(cache: str, paths: Sequence[str]) -> None:
    """Raise an error if a cache is being written, or its writer was killed; TensorFlow's is not clear."""
    locks = [lock for path in paths for lock in glob(f"{escape(path)}_*.lockfile")]
    if locks:
        raise OptionError(
            f"cache={cache!r} is being written by another dataset, or the process that wrote it was killed: "
            f"{locks[0]} exists. Finish the first epoch of the other dataset, or delete "
            f"{escape(cache)}-*; or pass another path."
        )
