"""Import of pyarrow, which only columns of strings require."""

from __future__ import annotations

from typing import Any

from xee_tf.extras import extra

__all__ = ["import_pyarrow"]


def import_pyarrow() -> Any:
    """Import pyarrow, or raise an error that names the missing extra."""
    with extra("tables", "A column of strings"):
        import pyarrow
    return pyarrow
