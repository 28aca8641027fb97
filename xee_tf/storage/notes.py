"""Small JSON files that processes leave for each other, with a checksum.

Journals, receipts and the other files in staging folders are notes. If a file is damaged, was edited, or was
written by another version, its content is not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from crc32c import crc32c

from xee_tf.errors import StorageError
from xee_tf.storage.location import Location

__all__ = ["DamagedNoteError", "is_torn_note", "note_bytes", "read_note", "write_note"]

_FORMAT = 2  # increase it if the content of any note changes


class DamagedNoteError(ValueError):
    """A file exists, but is not a valid note of this version."""


def write_note(
    location: Location, content: Mapping[str, Any], *, exclusive: bool = False, durable: bool = False
) -> None:
    """Write a note; see `Location.write_bytes`.

    Examples
    --------
    >>> note = Location.of("memory://notes/uploads.json")
    >>> write_note(note, {"0": "id"})
    >>> read_note(note)
    {'0': 'id'}
    """
    location.write_bytes(note_bytes(content), exclusive=exclusive, durable=durable)


def note_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a note."""
    text = json.dumps(content)
    return json.dumps({"format": _FORMAT, "crc32c": crc32c(text.encode()), "content": content}).encode()


def read_note(location: Location) -> dict[str, Any] | None:
    """Read a note; return None if there is none.

    Raises
    ------
    DamagedNoteError
        If there is a file or folder that is not a valid note.
    """
    try:
        data = location.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        raise DamagedNoteError("it is a folder") from None
    try:
        found = json.loads(data)
        content = found["content"]
        valid = found["format"] == _FORMAT and found["crc32c"] == crc32c(json.dumps(content).encode())
    except (ValueError, KeyError, TypeError, RecursionError):
        valid, content = False, None
    if not valid or not isinstance(content, dict):
        raise DamagedNoteError("it is damaged, or was not written by this version of xee_tf")
    return content


def is_torn_note(location: Location) -> bool:
    """Return whether a file is the beginning of a note, whose writer was killed.

    This can happen in stores that are neither local disks nor object stores.

    Examples
    --------
    >>> note = Location.of("memory://notes/torn.json")
    >>> note.write_bytes(note_bytes({"0": "id"})[:30])
    >>> is_torn_note(note)
    True
    """
    if location.is_local:
        return False
    try:
        data = location.read_bytes()
    except (StorageError, FileNotFoundError, IsADirectoryError):
        return False
    start = note_bytes({})[: len(data)].partition(b":")[0]
    with suppress(ValueError):
        json.loads(data)
        return False
    return data.startswith(start)
