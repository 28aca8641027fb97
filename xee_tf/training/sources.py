"""Open the exports that a training pipeline reads, and check that their records are compatible."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from xee_tf.display import quoted
from xee_tf.errors import MissingShardError, OptionError, XeeTFError
from xee_tf.reading import OpenedExport, ReadOptions, open_export, open_files
from xee_tf.shards import Shard, read_records
from xee_tf.sidecars import (
    MIXER,
    Exported,
    ExportedTable,
    Mixer,
    find_exports,
    find_sources,
    is_image,
    missing_error,
    prefix_of,
    require_missing,
)
from xee_tf.storage import Location

__all__ = ["Exports", "check_compatible", "mixer_of", "open_exports"]

_One = Exported | ExportedTable

Exports = _One | Sequence[_One] | Mapping[str, _One]


def open_exports(sources: Exports, options: ReadOptions) -> list[OpenedExport]:
    """Open mixers, export results, files and patterns; consecutive files are opened as one export."""
    items = _items(sources)
    if options.records is not None:
        if len(items) != 1:
            raise OptionError(f"records requires a single mixer; got {len(items)} sources.")
        return [_open_image(items[0], options)]
    if any(isinstance(item, Mixer) for item in items):
        raise OptionError("A Mixer object has no path: pass the path of the mixer, or add records=[...].")
    opened: list[OpenedExport] = []
    mixers: dict[tuple[str, bool], Location] = {}
    locations = [found for item in items for found in find_sources(item, options.storage_options)]
    for images, group in groupby(locations, is_image):
        files = list(group)
        try:
            if not images:
                opened.append(open_files(files, options))
                continue
            for mixer in files:
                opened.append(_open_image(mixer, options))
                _check_first_runs(opened[-1].shards)
                mixers.update((_key(shard.location), mixer) for shard in opened[-1].shards)
        except MissingShardError:
            missing = next((file for file in files if not file.exists()), None)
            if missing is None:
                raise
            require_missing(missing)
            raise missing_error(
                missing,
                f"{missing} was not found: expected a mixer (a file that ends with {MIXER}), the folder or "
                "prefix of an export, TFRecord files, or a pattern of files. Correct the path.",
            ) from None
    if not opened:
        raise OptionError("There is nothing to read: pass a mixer, TFRecord files, or a pattern of files.")
    for location in locations:
        owner = mixers.get(_key(location))
        if owner is not None:
            raise OptionError(f"{location} is a shard of {owner}, which is passed, too: pass only the mixer.")
    if isinstance(sources, Mapping):
        _require_no_split(sources, opened)
    return opened


def _require_no_split(sources: Mapping[str, Any], exports: Sequence[OpenedExport]) -> None:
    """Raise an error for the sides of a split: a model must not be trained with all of them."""
    parts = [export.patches for export in exports if export.patches is not None]
    same = len({(export.grid.affine, export.grid.shape) for export in exports if export.described}) == 1
    if len(exports) < 2 or len(parts) < len(exports) or not same:
        return
    patches = np.concatenate(parts)
    if len(np.unique(patches)) == len(patches):
        [side, *_] = sources
        raise OptionError(
            f"The exports {quoted(sources)} are parts of one raster, such as the sides of a split: pass one "
            f"of them, as in tf_dataset(exports[{side!r}], ...), or a list of those to read."
        )


def _check_first_runs(shards: Sequence[Shard]) -> None:
    """Compare the first records of local files with the manifest, so that foreign files are noticed early."""
    for shard in shards:
        if shard.location.is_local and shard.run_starts is not None and len(shard.run_starts) > 1:
            for _ in read_records(shard, 0, int(shard.run_starts[1]), share=False):
                pass


def _key(location: Location) -> tuple[str, bool]:
    """Return a key that is the same for a path and its URL."""
    return location.path, location.is_local


def _items(sources: Any) -> list[Any]:
    """Return a list of sources; raise an error for a raster or a table that is not exported."""
    if isinstance(sources, xr.Dataset | xr.DataArray | pd.DataFrame):
        export = "xee_tf.export_table" if isinstance(sources, pd.DataFrame) else "ds.tfexport"
        raise OptionError(
            f"Expected a mixer, an export result, TFRecord files, or a pattern of files; got a "
            f"{type(sources).__name__}. Export it with {export}, and pass the result."
        )
    values: Any = sources.values() if isinstance(sources, Mapping) else sources
    several = isinstance(values, Collection) and not isinstance(values, str | bytes)
    return list(values) if several else [values]


def _open_image(source: Any, options: ReadOptions) -> OpenedExport:
    """Open the export of a mixer or manifest."""
    if options.patch_dimensions is not None:
        raise OptionError(
            f"patch_dimensions={options.patch_dimensions!r} is only for files without a mixer: omit it, the "
            "mixer defines the size of the patches."
        )
    return open_export(source, options)


def mixer_of(shard: Location) -> Location | None:
    """Return the mixer (or the manifest) of a shard, by its name; None if there is none in its folder."""
    try:
        exports = find_exports(shard.parent)
    except (XeeTFError, OSError):
        return None
    for export in exports:
        prefix = prefix_of(export).name
        if is_image(export) and shard.name.startswith(prefix) and shard.name[len(prefix) :][:5].isdigit():
            return export
    return None


def check_compatible(exports: Sequence[OpenedExport]) -> None:
    """Check that the records of all exports have the same content, so that they can be read together."""
    first, *others = exports
    for other in others:
        if _describe_records(other) != _describe_records(first):
            raise OptionError(
                f"The exports are not compatible: {first} contains {_describe_records(first)}; {other} "
                f"contains {_describe_records(other)}. Export them with the same options, or create a "
                "dataset for each."
            )


def _describe_records(export: OpenedExport) -> str:
    """Describe the records of an export."""
    content, kinds = export.content, {feature.name: feature.kind for feature in export.layout.features}
    bands = []
    for band in export.bands:
        if band.feature in content.labels:
            bands.append(f"{band.name} ({kinds[band.feature]}, {content.labels[band.feature]} per record)")
            continue
        depth = f", {band.depth} steps" if band.dims else ""
        total = content.depths[band.feature]
        part = "" if total == band.depth else f", from {band.first} of {total} in {band.feature!r}"
        bands.append(f"{band.name} ({kinds[band.feature]}{depth}{part})")
    records = f"patches of {export.core.x} x {export.core.y} pixels and margins of {content.margin.xy}"
    if export.layout.sequences is not None:
        records = f"series of pixels, padded with {content.fill:g},"
    elif content.unit == "pixel":
        records = "single pixels"
    return f"{records} in {', '.join(bands)}"
