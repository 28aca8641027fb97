"""Find runs that have not put anything in place: they are working, or were interrupted."""

from __future__ import annotations

import re

from xee_tf.storage.location import Location
from xee_tf.storage.processes import TOKEN
from xee_tf.storage.runs import is_resumable
from xee_tf.storage.staging import Staging, is_working, staging_folders, token_of

__all__ = ["explain_unfinished", "explain_unfinished_in", "resumable_runs"]

_STAGED = re.compile(rf"\.(.+)-{TOKEN}\.parts")


def explain_unfinished(destination: Location) -> str:
    """Say that a run that writes to a destination has not finished; empty if there is none.

    Examples
    --------
    >>> explain_unfinished(Location.of("memory://unfinished/scene"))
    ''
    """
    folders = [folder for folder in staging_folders(destination) if token_of(folder) is not None]
    if not folders:
        return ""
    if any(map(is_working, folders)):
        return f"A run is writing {destination}: try again when it has finished."
    how = " with if_exists='resume'" if any(map(is_resumable, folders)) else ""
    return f"A run that was writing {destination} was interrupted: run it again{how}."


def resumable_runs(destination: Location) -> list[Staging]:
    """Return interrupted runs that wrote to a destination and have kept something.

    Examples
    --------
    >>> resumable_runs(Location.of("memory://unfinished/scene"))
    []
    """
    found = [(folder, token_of(folder)) for folder in staging_folders(destination)]
    return [
        Staging(destination, token)
        for folder, token in found
        if token is not None and is_resumable(folder) and not is_working(folder)
    ]


def explain_unfinished_in(folder: Location) -> str:
    """Say that a run that writes to a folder has not finished; empty if there is none."""
    names = {match[1] for name in folder.entries() if (match := _STAGED.fullmatch(name))}
    return next(filter(None, (explain_unfinished(folder.child(name)) for name in sorted(names))), "")
