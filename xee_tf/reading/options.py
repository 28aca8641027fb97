"""What a user says of the records that are read: which files, which bands, and what no sidecar tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xee_tf.geometry import Size
from xee_tf.sidecars import ExportedImage, ShardInfo
from xee_tf.storage import Location, PathLike

__all__ = ["ReadOptions", "RecordFiles"]

RecordFiles = PathLike | Location | ExportedImage | Sequence[PathLike | Location | ShardInfo]
"""The shards of an export in order, or what an export returned."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadOptions:
    """Options of reading; `xee_tf.open_image` describes each one, `xee_tf.tf_dataset` `patch_dimensions`."""

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
        """The kernel, where it is given."""
        return None if self.kernel_size is None else Size.from_xy(self.kernel_size, "kernel_size")

    @property
    def patch(self) -> Size | None:
        """The pixels of a patch, where they are given."""
        return (
            None if self.patch_dimensions is None else Size.from_xy(self.patch_dimensions, "patch_dimensions")
        )
