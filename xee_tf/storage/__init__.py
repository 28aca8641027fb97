"""Locations on local disks and in object stores, checks of destinations, and Zarr stores."""

from xee_tf.storage.commit import Earlier, Upload, begin, clear_leftovers, commit, interruption, look
from xee_tf.storage.destinations import require_free, require_reachable, require_writable
from xee_tf.storage.listing import list_files
from xee_tf.storage.location import Location, PathLike, is_inaccessible
from xee_tf.storage.staging import Staging, is_working, staging_folders
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
    "BEGUN",
    "COMPLETE",
    "PREPARED",
    "RECORD",
    "ZARR_METADATA",
    "Earlier",
    "Location",
    "PathLike",
    "Staging",
    "Upload",
    "begin",
    "beside",
    "clear_leftovers",
    "commit",
    "create_store",
    "explain_changes",
    "interruption",
    "is_inaccessible",
    "is_working",
    "list_files",
    "look",
    "open_arrays",
    "read_record",
    "replace_store",
    "require_free",
    "require_own_store",
    "require_reachable",
    "require_writable",
    "staging_folders",
    "to_storable",
    "write_record",
]
