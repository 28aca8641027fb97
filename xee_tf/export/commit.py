"""Commit an image export: move the shards into place, then write the patch index, manifest and mixer."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xee_tf.export.result import ExportResult
from xee_tf.export.resuming import shard_files
from xee_tf.export.tallies import statistics_of_shards
from xee_tf.extras import extra
from xee_tf.geometry import PatchGrid
from xee_tf.georef import apply_affine
from xee_tf.shards import ShardStore, WrittenShard, commit_once
from xee_tf.sidecars import ExportNames, ImageManifest, Mixer, find_same
from xee_tf.statistics import BandStatistics
from xee_tf.storage import Location

__all__ = ["ImageCommit"]


@dataclass(frozen=True)
class ImageCommit:
    """Callable that commits an image export; small and picklable.

    Parameters
    ----------
    names : ExportNames
        The names of the files.
    grid : PatchGrid
        The patches.
    records_per_patch : int
        Number of records per patch.
    store : ShardStore
        The store that contains the complete shards.
    manifest : ImageManifest
        The manifest without its shards.
    mixer, index : bool
        Whether the mixer and the patch index are written.
    resumed : int
        Number of shards that an interrupted write has completed.
    selected : int, optional
        Number of patches that were selected; None if all were.
    left_out : int
        See `ExportResult`.
    """

    names: ExportNames
    grid: PatchGrid
    records_per_patch: int
    store: ShardStore
    manifest: ImageManifest
    mixer: bool
    index: bool
    resumed: int
    selected: int | None = None
    left_out: int = 0

    def __call__(self, shards: Sequence[WrittenShard]) -> ExportResult:
        """Commit the shards and write the sidecars; the mixer is last, because it marks a complete export."""
        names = self.names
        mixer = names.mixer if self.mixer else None
        identity = self.manifest.identity
        statistics = statistics_of_shards([band.name for band in self.manifest.bands], shards)
        done = commit_once(
            self.store,
            lambda: find_same(ImageManifest, names.manifest, names.prefix, identity, mixer=mixer),
            lambda: self.store.commit(shards, self._sidecars(shards, statistics)),
        )
        if isinstance(done, ImageManifest):  # another run has completed the same export
            files, resumed, statistics = shard_files(names, done), len(done.shards), done.statistics
        else:
            files, resumed = done, self.resumed
        return ExportResult(
            files=files,
            mixer=mixer,
            index=names.index if self.index else None,
            manifest=names.manifest,
            grid=self.grid,
            records_per_patch=self.records_per_patch,
            selected=self.selected,
            left_out=self.left_out,
            resumed=resumed,
            _statistics=statistics,
        )

    def _sidecars(
        self, shards: Sequence[WrittenShard], statistics: Mapping[str, BandStatistics] | None
    ) -> list[tuple[Location, bytes]]:
        """Return the files that describe the shards, and their contents."""
        names = self.names
        # If there is a mixer, the number of a record is the number of its patch.
        described = tuple(
            shard.in_manifest(names.shard(shard.number).name, patches=not self.mixer) for shard in shards
        )
        manifest = replace(self.manifest, shards=described, statistics=statistics)
        sidecars = [(names.manifest, manifest.text().encode())]
        if self.index:
            sidecars.insert(0, (names.index, self._index(shards)))
        if self.mixer:
            sidecars.append((names.mixer, Mixer.from_grid(self.grid).text().encode()))
        return sidecars

    def _index(self, shards: Sequence[WrittenShard]) -> bytes:
        """Return the content of a GeoParquet file with one row for each patch that was written."""
        with extra("tables", "index=True"):
            import geopandas as gpd
        import shapely

        counts = [len(shard.patches) for shard in shards]
        patches = np.concatenate([shard.patches for shard in shards])
        rows, columns = np.divmod(patches, self.grid.patches_per_row)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
        pixels = (np.stack([columns, rows], axis=1)[:, None, :] + corners) * self.grid.patch.xy
        points = apply_affine(self.grid.affine, pixels.reshape(-1, 2)).reshape(pixels.shape)
        frame = gpd.GeoDataFrame(
            {
                "file": np.repeat([self.names.shard(shard.number).name for shard in shards], counts),
                "record": np.concatenate([np.arange(count) * self.records_per_patch for count in counts]),
                "patch": patches,
                "row": rows,
                "column": columns,
                "masked": np.concatenate([shard.masked for shard in shards]),
            },
            geometry=shapely.polygons(points),
            crs=self.grid.crs,
        )
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        return buffer.getvalue()
