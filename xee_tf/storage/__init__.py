"""Locations on local disks and in object stores, checks of destinations, and Zarr stores."""

from xee_tf.storage.commit import Seen, Upload, clear_leftovers, commit, interruption, look
from xee_tf.storage.destinations import require_free, require_reachable, require_writable
from xee_tf.storage.location import Location, PathLike, is_inaccessible
from xee_tf.storage.runs import Run
from xee_tf.storage.zarr import (
    BEGUN,
    COMPLETE,
    PREPARED,
    RECORD,
    ZARR_METADATA,
    beside,
    create_store,
    explain_changes,
    open_arrays,
    read_record,
    replace_store,
    require_own_store,
    to_storable,
    write_record,
)

__all__ = [
    "look",
    "interruption",
    "commit",
    "clear_leftovers",
    "Upload",
    "Seen",
    "Run",
    "BEGUN",
    "COMPLETE",
    "PREPARED",
    "RECORD",
    "ZARR_METADATA",
    "Location",
    "PathLike",
    "beside",
    "create_store",
    "explain_changes",
    "is_inaccessible",
    "open_arrays",
    "read_record",
    "replace_store",
    "require_free",
    "require_own_store",
    "require_reachable",
    "require_writable",
    "to_storable",
    "write_record",
]
