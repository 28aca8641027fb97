"""Recognize an export that was interrupted while its files were put in place."""

from __future__ import annotations

import errno

from xee_tf.errors import MissingShardError
from xee_tf.storage import Location, interruption, is_inaccessible

__all__ = ["require_whole"]


def require_whole(destination: Location) -> None:
    """Raise an error if the files of an export are being put in place, or if that was interrupted.

    Readers call it if the file that marks an export as complete does not exist. `destination` is the prefix
    of an image, or the file of a table.
    """
    if destination.is_web or destination.is_root or not destination.name:
        return
    try:
        problem = interruption(destination)
    except Exception as error:
        if not is_inaccessible(error) and getattr(error.__cause__, "errno", None) != errno.ENAMETOOLONG:
            raise
        return
    if problem:
        raise MissingShardError(f"{destination} is not complete. {problem}")
