"""The warning of a plan that needs more memory than this computer has."""

from __future__ import annotations

import psutil
from dask.system import CPU_COUNT
from dask.utils import format_bytes

from xee_tf.display import counted

__all__ = ["memory_warning"]

_SHARE = 0.8  # of the memory, which a plan may need without a warning


def memory_warning(work: str, task: int, peak: int, options: str, chunks: str = "") -> str | None:
    """Return a warning if a plan may not fit in memory.

    Parameters
    ----------
    work : str
        What is planned.
    task, peak : int
        Bytes for each task, and for this process.
    options : str
        What else than smaller chunks reduces them.
    chunks : str
        A sentence about the chunks.

    Examples
    --------
    >>> memory_warning("export", 1 << 20, 1 << 21, "reduce the patch size") is None
    True
    """
    available = psutil.virtual_memory().total
    if peak < _SHARE * available:
        return None
    return (
        f"The {work} may not fit in memory: each task needs {format_bytes(task)}, and "
        f"{counted(CPU_COUNT, 'concurrent task')} need about {format_bytes(peak)}, but only "
        f"{format_bytes(available)} are available. {chunks and chunks + ' '}Open the raster with smaller "
        f"chunks, for example chunks={{'y': 1024, 'x': 1024}}, {options}, or use fewer threads."
    )
