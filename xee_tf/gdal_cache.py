"""Limit the memory in which GDAL keeps the blocks of files.

By default, this is 5 % of the memory of the computer in every process: 1.2 GB on a computer with 24 GB. Plans
do not include this memory. In a worker of a cluster that has little memory, nothing frees the cache, so that
the worker pauses and never continues.
"""

from __future__ import annotations

import os
import sys
from functools import cache

from rasterio.env import set_gdal_config

__all__ = ["limit_in_worker", "limit_to"]

_SHARE = 10  # a worker's memory divided by the memory for GDAL's blocks


def limit_to(size: int) -> None:
    """Limit GDAL's cache to `size` bytes, unless the user has set ``GDAL_CACHEMAX``."""
    if "GDAL_CACHEMAX" not in os.environ:
        set_gdal_config("GDAL_CACHEMAX", size)


@cache
def limit_in_worker() -> None:
    """Limit GDAL's cache to a share of the memory of a worker, if this process is one."""
    if "distributed" not in sys.modules:
        return
    from distributed import get_worker

    try:
        limit = get_worker().memory_manager.memory_limit
    except ValueError:  # not in a task of a worker
        return
    if limit:
        limit_to(limit // _SHARE)
