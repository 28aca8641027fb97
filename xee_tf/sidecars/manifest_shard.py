"""One TFRecord file in a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.sidecars.packing import pack, read_count, read_text, unpack
from xee_tf.storage import Location

__all__ = ["ManifestShard"]


@dataclass(frozen=True, eq=False)
class ManifestShard:
    """One TFRecord file of an export.

    Parameters
    ----------
    name : str
        The file's name, without its folder.
    records : int
    bytes : int
        Size of the file.
    crc32c : int
        CRC-32C of the whole file.
    run_records : ndarray of uint32
        Records of each run: consecutive records that are compressed together.
    run_crcs : ndarray of uint32
        For each run the CRC-32C over the footers of its records (the four bytes behind the data of each).
        It stands for the content of the run, whether the file is compressed or not.
    patches : ndarray of int64, optional
        The number of the patch in every record, where patches were dropped.
    """

    name: str
    records: int
    bytes: int
    crc32c: int
    run_records: npt.NDArray[np.uint32]
    run_crcs: npt.NDArray[np.uint32]
    patches: npt.NDArray[np.int64] | None = None

    def same_kind(self, location: Location) -> bool:
        """Whether a file is compressed if this one was, by its name: then it has the same bytes, too."""
        return location.name.endswith(".gz") == self.name.endswith(".gz")

    def document(self) -> dict[str, Any]:
        """The part of a manifest for this file."""
        document = {
            "name": self.name,
            "records": self.records,
            "bytes": self.bytes,
            "crc32c": f"{self.crc32c:08x}",
            "runRecords": pack(self.run_records, "<u4"),
            "runCrcs": pack(self.run_crcs, "<u4"),
        }
        if self.patches is not None:
            document["patches"] = pack(self.patches, "<i8")
        return document

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ManifestShard:
        """The shard that `document` describes.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is not valid.
        """
        name = read_text(document["name"], "the name of a shard")
        if "/" in name or "\\" in name:
            raise ValueError(f"the name of a shard is {name!r}, which has a folder")
        crc = document["crc32c"]
        shard = cls(
            name,
            read_count(document["records"], f"records of {name}"),
            read_count(document["bytes"], f"bytes of {name}"),
            int(read_text(crc, f"crc32c of {name}"), 16),
            unpack(document.get("runRecords", ""), "<u4"),
            unpack(document.get("runCrcs", ""), "<u4"),
            unpack(document["patches"], "<i8") if "patches" in document else None,
        )
        if len(shard.run_records) != len(shard.run_crcs):
            raise ValueError(f"{name} has {len(shard.run_records)} runs but {len(shard.run_crcs)} checksums")
        if len(shard.run_records) and int(shard.run_records.sum(dtype=np.int64)) != shard.records:
            raise ValueError(f"the runs of {name} do not add up to its {shard.records} records")
        return shard
