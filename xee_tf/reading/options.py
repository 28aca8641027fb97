"""Options for reading records: files, bands, and values that neither mixer nor manifest contains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xee_tf.geometry import Size
from xee_tf.sidecars import ExportedImage, ShardInfo
from xee_tf.storage import Location, PathLike

__all__ = ["ReadOptions", "RecordFiles"]

RecordFiles = PathLike | Location | ExportedImage | Sequence[PathLike | Location | ShardInfo]
"""The shards of an export in order, or an export result."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadOptions:
    """Options for reading, see `xee_tf.open_image`; for `patch_dimensions`, see `xee_tf.tf_dataset`."""

    records: RecordFiles | None = None
    bands: Sequence[str] | None = None
    crs: Any = None
    default_value: float | None = None
    kernel_size: int | Sequence[int] | None = None
    patch_dimensions: int | Sequence[int] | None = None
    tensor_depths: Mapping[str, int] | None = None
    verify: bool = True
    storage_options: Mapping[str, Any] | None = None

    @property
    def kernel(self) -> Size | None:
        """The kernel size, if given."""
        return None if self.kernel_size is None else Size.from_xy(self.kernel_size, "kernel_size")

    @property
    def patch(self) -> Size | None:
        """The patch size, if given."""
        return (
            None if self.patch_dimensions is None else Size.from_xy(self.patch_dimensions, "patch_dimensions")
        )
