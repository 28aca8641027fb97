"""Locations on local disks and in object stores, checks of destinations, staging and commits, Zarr stores."""

from xee_tf.storage.claims import claim, earlier_store, remove_other_runs, staged_runs
from xee_tf.storage.destinations import require_free, require_reachable, require_writable
from xee_tf.storage.failures import is_inaccessible, storage_errors
from xee_tf.storage.journal import (
    Earlier,
    Upload,
    begin,
    clear_leftovers,
    commit,
    interruption,
    look,
    recover,
)
from xee_tf.storage.location import Location, PathLike
from xee_tf.storage.notes import DamagedNoteError, read_note, write_note
from xee_tf.storage.s3 import UPLOADS, call_s3, known_uploads
from xee_tf.storage.staging import Staging, remove_leftovers
from xee_tf.storage.zarr import (
    StoredBand,
    finish_store,
    hide_store,
    prepare_store,
    stored_bands,
    to_storable,
)
from xee_tf.storage.zarr_record import (
    BEGUN,
    COMPLETE,
    PREPARED,
    RECORD,
    ZARR_METADATA,
    beside,
    clear_store,
    explain_changes,
    has_root,
    is_finished,
    read_record,
    remove_temporary_files,
    require_own_store,
    write_record,
)

__all__ = [
    "BEGUN",
    "COMPLETE",
    "PREPARED",
    "RECORD",
    "UPLOADS",
    "ZARR_METADATA",
    "DamagedNoteError",
    "Earlier",
    "Location",
    "PathLike",
    "Staging",
    "StoredBand",
    "Upload",
    "begin",
    "beside",
    "call_s3",
    "claim",
    "clear_leftovers",
    "clear_store",
    "commit",
    "earlier_store",
    "explain_changes",
    "finish_store",
    "has_root",
    "hide_store",
    "interruption",
    "is_finished",
    "is_inaccessible",
    "known_uploads",
    "look",
    "prepare_store",
    "read_note",
    "read_record",
    "recover",
    "remove_leftovers",
    "remove_other_runs",
    "remove_temporary_files",
    "require_free",
    "require_own_store",
    "require_reachable",
    "require_writable",
    "staged_runs",
    "storage_errors",
    "stored_bands",
    "to_storable",
    "write_note",
    "write_record",
]
