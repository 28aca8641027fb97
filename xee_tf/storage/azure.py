"""Block lists of Azure; see `xee_tf.storage.uploads`.

A part is a block that is staged for the final blob. Blocks are invisible until a list of them is committed,
and those that are not in the list are then deleted. Azure deletes blocks that were never committed after a
week, so uploads are neither created nor aborted.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO
from typing import Any

from crc32c import crc32c
from fsspec.asyn import sync

from xee_tf.errors import DestinationError
from xee_tf.storage.failures import is_missing, storage_errors
from xee_tf.storage.location import Location
from xee_tf.storage.staging import Staging

__all__ = ["MOST_PARTS", "SMALLEST_PART", "abort", "complete", "create", "exists", "put"]

SMALLEST_PART = 1
MOST_PARTS = 45_000  # 50,000 are allowed


def create(staging: Staging, target: Location) -> str:
    """Return an id for the blocks of a run; see `UploadService`."""
    return sha256(staging.token.encode()).hexdigest()[:16]


def put(target: Location, upload: str, number: int, body: bytes) -> str:
    """Stage a block; see `UploadService`."""
    # All blocks of a blob must have ids of the same length: adlfs also uses 32 characters.
    block = f"{upload}{number:08x}{crc32c(body):08x}"
    _call(target, "stage_block", block_id=block, data=BytesIO(body), length=len(body))
    return block


def complete(target: Location, upload: str, tags: Sequence[str]) -> None:
    """Commit a list of blocks; see `UploadService`."""
    _call(target, "commit_block_list", block_list=list(tags))


def exists(target: Location, upload: str, tags: Sequence[str] = ()) -> bool:
    """Return whether the blocks are staged; see `UploadService`."""
    if not tags:
        return True
    try:
        _, staged = _call(target, "get_block_list", block_list_type="uncommitted")
    except DestinationError as error:
        if not is_missing(error):
            raise
        return False
    return set(tags) <= {block.id for block in staged}


def abort(target: Location, upload: str) -> None:
    """Do nothing; see the module."""


def _call(target: Location, method: str, **arguments: Any) -> Any:
    """Call a method of the Azure client for a blob."""

    async def call() -> Any:
        async with target.fs.service_client.get_blob_client(target.bucket, target.key) as blob:
            return await getattr(blob, method)(**arguments)

    with storage_errors("write", target.url, local=False):
        return sync(target.fs.loop, call)
