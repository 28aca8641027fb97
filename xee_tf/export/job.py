"""One export to write."""

from __future__ import annotations

from dataclasses import dataclass

from xee_tf.export.choosing import PatchChoice
from xee_tf.export.plan import ExportPlan
from xee_tf.graph import ChunkedArray
from xee_tf.identity import RunIdentity

__all__ = ["ExportJob"]


@dataclass(frozen=True)
class ExportJob:
    """One export to write.

    Parameters
    ----------
    plan : ExportPlan
        The plan of the export.
    arrays : list of ChunkedArray
        Arrays of shape (y, x) or (step, y, x): one for each band, followed by the user's mask if there is
        one.
    label : str
        Name of the step of a split dimension and of the side of a split; empty if there is a single export.
    identity : RunIdentity, optional
        What the export writes, if it can be resumed.
    choice : PatchChoice, optional
        How its patches are chosen.
    side : str
        Name of the side of a split; empty if there is none.
    """

    plan: ExportPlan
    arrays: list[ChunkedArray]
    label: str = ""
    identity: RunIdentity | None = None
    choice: PatchChoice | None = None
    side: str = ""
