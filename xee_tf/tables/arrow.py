"""pyarrow, which columns of strings need; tables of numbers do without."""

from __future__ import annotations

from typing import Any

from xee_tf.extras import extra

__all__ = ["arrow"]


def arrow() -> Any:
    """The module pyarrow."""
    with extra("tables", "A column of strings"):
        import pyarrow
    return pyarrow
