"""Locations on local disks and in object stores, checks of destinations, and Zarr stores."""

from xee_tf.storage.claims import claim, commit_store, remove_other_runs, staged_runs
from xee_tf.storage.commit import Seen, Upload, clear_leftovers, commit, interruption, look, recover
from xee_tf.storage.destinations import require_free, require_reachable, require_writable
from xee_tf.storage.location import Location, PathLike, is_inaccessible
from xee_tf.storage.runs import Run
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
    "ZARR_METADATA",
    "Location",
    "PathLike",
    "Run",
    "Seen",
    "StoredBand",
    "Upload",
    "beside",
    "claim",
    "clear_leftovers",
    "clear_store",
    "commit",
    "commit_store",
    "explain_changes",
    "finish_store",
    "has_root",
    "hide_store",
    "interruption",
    "is_finished",
    "is_inaccessible",
    "look",
    "prepare_store",
    "read_record",
    "recover",
    "remove_other_runs",
    "remove_temporary_files",
    "require_free",
    "require_own_store",
    "require_reachable",
    "require_writable",
    "staged_runs",
    "stored_bands",
    "to_storable",
    "write_record",
]
