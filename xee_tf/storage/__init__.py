"""Files on local disks and in object stores, and runs whose files appear together or not at all.

From the bottom to the top:

* files: `filesystems` (URLs), `equivalents` (what to pass for other addresses), `address` (names), `local`
  and `objects` (what disks and stores need), `location` and `store_file` (access to a file); their errors:
  `failures`, `credentials`
* what processes leave for each other: `processes` (is it alive?), `notes` (small files), `staging` (what a
  run has not put in place yet)
* uploads of an object in parts: `s3`, `azure`, `gcs`, `uploads`
* before a run: `destinations` (may it be written?), `seen` (what is there?)
* `row_file` (rows that tasks write in any order)
* a commit: `journal` (the file that keeps others out), `moves` (files in place, and back), `recovery` (after
  an interruption), `runs` (begin or continue), `commits`; `unfinished` (for readers)
* Zarr stores: `zarr_record`, `zarr`, and `claims` of stores that are written in place
"""

from xee_tf.storage.address import PathLike
from xee_tf.storage.claims import claim, earlier_store, remove_other_runs, replace_store, staged_runs
from xee_tf.storage.commits import commit
from xee_tf.storage.destinations import (
    bucket_exists,
    refuse_resuming,
    require_free,
    require_other,
    require_reachable,
    require_writable,
)
from xee_tf.storage.equivalents import bucket_url
from xee_tf.storage.failures import NO_TLS, USE_HTTP, disk_usage, is_inaccessible, storage_errors
from xee_tf.storage.location import Location
from xee_tf.storage.notes import DamagedNoteError, read_note, write_note
from xee_tf.storage.recovery import interruption, recover
from xee_tf.storage.row_file import RowFile
from xee_tf.storage.runs import Earlier, begin, clear_leftovers, discard, has_staged
from xee_tf.storage.seen import look
from xee_tf.storage.staging import Staging, read_uploads, write_uploads
from xee_tf.storage.unfinished import explain_unfinished, explain_unfinished_in, resumable_runs
from xee_tf.storage.uploads import UploadService, stage_local_file, upload_service
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
)

__all__ = [
    "BEGUN",
    "COMPLETE",
    "NO_TLS",
    "PREPARED",
    "RECORD",
    "USE_HTTP",
    "ZARR_METADATA",
    "DamagedNoteError",
    "Earlier",
    "Location",
    "PathLike",
    "RowFile",
    "Staging",
    "StoredBand",
    "UploadService",
    "begin",
    "beside",
    "bucket_exists",
    "bucket_url",
    "claim",
    "clear_leftovers",
    "clear_store",
    "commit",
    "discard",
    "disk_usage",
    "earlier_store",
    "explain_changes",
    "explain_unfinished",
    "explain_unfinished_in",
    "finish_store",
    "has_root",
    "has_staged",
    "hide_store",
    "interruption",
    "is_finished",
    "is_inaccessible",
    "look",
    "prepare_store",
    "read_note",
    "read_record",
    "read_uploads",
    "recover",
    "refuse_resuming",
    "remove_other_runs",
    "remove_temporary_files",
    "replace_store",
    "require_free",
    "require_other",
    "require_own_store",
    "require_reachable",
    "require_writable",
    "resumable_runs",
    "stage_local_file",
    "staged_runs",
    "storage_errors",
    "stored_bands",
    "to_storable",
    "upload_service",
    "write_note",
    "write_uploads",
]
