"""Locations on local disks and in object stores, checks of destinations, and Zarr stores."""

from xee_tf.storage.destinations import require_free, require_reachable, require_writable
from xee_tf.storage.location import Location, PathLike, is_refused
from xee_tf.storage.zarr import (
    BEGUN,
    COMPLETE,
    PREPARED,
    RECORD,
    ZARR_METADATA,
    beside,
    create_store,
    open_arrays,
    read_record,
    replace_store,
    require_our_store,
    storable,
    why_changed,
    write_record,
)

__all__ = [
    "BEGUN",
    "COMPLETE",
    "PREPARED",
    "RECORD",
    "ZARR_METADATA",
    "Location",
    "PathLike",
    "beside",
    "create_store",
    "is_refused",
    "open_arrays",
    "read_record",
    "replace_store",
    "require_free",
    "require_our_store",
    "require_reachable",
    "require_writable",
    "storable",
    "why_changed",
    "write_record",
]
