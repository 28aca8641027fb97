"""Where files are: local paths and object stores, and whether they can be written there."""

from xee_tf.storage.destinations import require_free, require_reachable, require_writable
from xee_tf.storage.location import Location, PathLike, is_refused

__all__ = [
    "Location",
    "PathLike",
    "is_refused",
    "require_free",
    "require_reachable",
    "require_writable",
]
