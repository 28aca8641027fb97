"""What a batch is: named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

__all__ = ["Arrays"]

Arrays = Mapping[str, npt.NDArray[Any]]
"""Named arrays of one batch; the first axis of each counts its instances."""
