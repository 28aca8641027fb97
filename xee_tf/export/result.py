"""What an export leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

from dask.utils import format_bytes

from xee_tf.display import Listing, Summarised, Summary, counted
from xee_tf.geometry import PatchGrid
from xee_tf.georef import grid_picture, grid_rows, per_pixel
from xee_tf.sidecars import ShardInfo
from xee_tf.storage import Location

__all__ = ["ExportResult"]


@dataclass(frozen=True, repr=False)
class ExportResult(Summarised):
    """What an image export wrote.

    Parameters
    ----------
    files : tuple of ShardInfo
        The shards, in the order of the records.
    mixer : Location or None
        The sidecar; None where `masked_threshold` dropped the georeference with it, as in Earth
        Engine.
    index : Location or None
        The GeoParquet patch index, if one was written.
    manifest : Location
        What the mixer does not hold: kernel, bands, coordinates, checksums.
    grid : PatchGrid
        The patches, those left out by `masked_threshold` included.
    records_per_patch : int
        1, or the pixels of a patch where each of them is a SequenceExample.
    """

    files: tuple[ShardInfo, ...]
    mixer: Location | None
    index: Location | None
    manifest: Location
    grid: PatchGrid
    records_per_patch: int = 1

    @property
    def records(self) -> int:
        """Examples written."""
        return sum(file.records for file in self.files)

    @property
    def dropped(self) -> int:
        """Patches left out because too much of them is masked."""
        return len(self.grid) - self.records // self.records_per_patch

    @property
    def bytes(self) -> int:
        """Size of all shards on disk."""
        return sum(file.bytes for file in self.files)

    def _summary(self) -> Summary:
        left_out = f", {counted(self.dropped, 'patch', 'patches')} left out as masked" if self.dropped else ""
        rows = [
            *grid_rows(self.grid),
            ("records", f"{self.records:,}{per_pixel(self.records_per_patch)}{left_out}"),
            ("bytes", f"{format_bytes(self.bytes)} in {counted(len(self.files), 'shard')}"),
        ]
        sidecars = (("mixer", self.mixer), ("sidecar", self.manifest), ("index", self.index))
        rows += [(label, str(location)) for label, location in sidecars if location is not None]
        files = Listing("files", [_cells(file) for file in self.files], most=5)
        return Summary("ExportResult", "", rows, listing=files, picture=grid_picture(self.grid))


def _cells(file: ShardInfo) -> tuple[str, str, str, str]:
    """Name, records, bytes and checksum of a file."""
    name = file.path.rsplit("/", 1)[-1]
    return name, counted(file.records, "record"), format_bytes(file.bytes), f"crc32c {file.crc32c:08x}"
