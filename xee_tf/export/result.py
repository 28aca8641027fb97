"""The result of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import xarray as xr
from dask.utils import format_bytes

from xee_tf.display import Listing, Summarized, Summary, counted
from xee_tf.geometry import PatchGrid
from xee_tf.georef import grid_picture, grid_rows, per_pixel, selected_rows
from xee_tf.sidecars import ShardInfo
from xee_tf.statistics import BandStatistics, statistics_cells, statistics_dataset
from xee_tf.storage import Location

__all__ = ["ExportResult"]


@dataclass(frozen=True, repr=False)
class ExportResult(Summarized):
    """The files that an image export wrote.

    Parameters
    ----------
    files : tuple of ShardInfo
        The shards, in the order of the records.
    mixer : Location or None
        The mixer; None if `masked_threshold` is below 1, as in Earth Engine, or with `sample` or `split`.
    index : Location or None
        The GeoParquet patch index; None if `index` is false.
    manifest : Location
        The file with the kernel, bands, coordinates and checksums, which a mixer cannot store.
    grid : PatchGrid
        All patches, including those that are not selected, or omitted because of `masked_threshold`.
    records_per_patch : int
        1, or with `sequence_data` the number of pixels of a patch.
    selected : int, optional
        With `sample` or `split`, the number of patches that were selected.
    left_out : int
        With `split`, the number of patches that are in no side, because they have pixels of two.
    resumed : int
        With ``if_exists="resume"``, the number of shards that were complete before.

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr, xee_tf
    >>> ds = xr.Dataset({"B4": (("y", "x"), np.ones((300, 300), "float32"))},
    ...                 coords={"y": 5e6 - 30 * np.arange(300.0), "x": 7e5 + 30 * np.arange(300.0)},
    ...                 attrs={"crs": "EPSG:32633"})
    >>> result = ds.tfexport(f"{tempfile.mkdtemp()}/scene", patch_dimensions=128)
    >>> result.records, result.dropped, result.mixer.name
    (4, 0, 'scene-mixer.json')
    >>> result.statistics["mean"].sel(band="B4").item()
    1.0
    """

    files: tuple[ShardInfo, ...]
    mixer: Location | None
    index: Location | None
    manifest: Location
    grid: PatchGrid
    records_per_patch: int = 1
    selected: int | None = None
    left_out: int = 0
    resumed: int = field(default=0, compare=False)
    _statistics: Mapping[str, BandStatistics] | None = field(default=None, compare=False)

    @property
    def records(self) -> int:
        """Number of records written."""
        return sum(file.records for file in self.files)

    @property
    def dropped(self) -> int:
        """Number of patches omitted because too many of their pixels are masked."""
        selected = len(self.grid) if self.selected is None else self.selected
        return selected - self.records // self.records_per_patch

    @property
    def bytes(self) -> int:
        """Size of all shards on disk in bytes."""
        return sum(file.bytes for file in self.files)

    @property
    def statistics(self) -> xr.Dataset | None:
        """Statistics of the pixels in the records, in the form of `xee_tf.band_statistics`.

        They are taken while the pixels are written, and are in the manifest. Each pixel counts once, without
        margins; patches that were omitted do not count. The values are those in the records: float32 if a
        band is written as such. None if the export was written with ``statistics=False`` or by an older
        version.
        """
        return None if self._statistics is None else statistics_dataset(self._statistics)

    def _summary(self) -> Summary:
        omitted = (
            f", {counted(self.dropped, 'masked patch', 'masked patches')} omitted" if self.dropped else ""
        )
        rows = [
            *grid_rows(self.grid),
            *selected_rows(self.selected, self.left_out, self.grid),
            ("records", f"{self.records:,}{per_pixel(self.records_per_patch)}{omitted}"),
            ("bytes", f"{format_bytes(self.bytes)} in {counted(len(self.files), 'shard')}"),
        ]
        if self.resumed:
            rows.append(("resumed", self._resumed_text()))
        sidecars = (("mixer", self.mixer), ("manifest", self.manifest), ("index", self.index))
        rows += [(label, str(location)) for label, location in sidecars if location is not None]
        values = Listing(
            "values", statistics_cells(self._statistics or {}), most=5, noun="band", is_whole=True
        )
        files = Listing("files", [_cells(file) for file in self.files], most=5)
        return Summary("ExportResult", "", rows, listings=[values, files], picture=grid_picture(self.grid))

    def _resumed_text(self) -> str:
        if self.resumed == len(self.files):
            return "all shards were already complete"
        return f"{self.resumed:,} of {len(self.files):,} shards were already complete"


def _cells(file: ShardInfo) -> tuple[str, str, str, str]:
    """Return the name, records, bytes and checksum of a file as text."""
    name = file.path.rsplit("/", 1)[-1]
    return name, counted(file.records, "record"), format_bytes(file.bytes), f"crc32c {file.crc32c:08x}"
