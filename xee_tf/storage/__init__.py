"""Locations on local disks and in object stores, checks of destinations, and Zarr stores."""

from xee_tf.storage.destinations import require_free, require_reachable, require_writable
from xee_tf.storage.failures import is_inaccessible, storage_errors
from xee_tf.storage.journal import Earlier, Upload, begin, clear_leftovers, commit, interruption, look
from xee_tf.storage.location import Location, PathLike
from xee_tf.storage.s3 import UPLOADS, call_s3, known_uploads
from xee_tf.storage.staging import Staging
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
    "UPLOADS",
    "ZARR_METADATA",
    "Earlier",
    "Location",
    "PathLike",
    "Staging",
    "Upload",
    "begin",
    "beside",
    "call_s3",
    "clear_leftovers",
    "commit",
    "create_store",
    "explain_changes",
    "interruption",
    "is_inaccessible",
    "known_uploads",
    "look",
    "open_arrays",
    "read_record",
    "replace_store",
    "require_free",
    "require_own_store",
    "require_reachable",
    "require_writable",
    "storage_errors",
    "to_storable",
    "write_record",
]
