"""What threads share while rasterio works."""

from threading import Lock

__all__ = ["WARNING_FILTERS"]

WARNING_FILTERS = Lock()
"""Held where rasterio changes the filters of warnings, which are those of the whole process."""
