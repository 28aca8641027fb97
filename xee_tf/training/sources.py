"""What a training pipeline reads: one or more exports, opened, and whether their records are alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

from xee_tf.errors import OptionError
from xee_tf.reading import OpenedExport, ReadOptions, open_export, open_files
from xee_tf.shards import check_first_runs
from xee_tf.sidecars import Exported, ExportedTable, Mixer, find_sources, is_image

__all__ = ["Exports", "check_alike", "open_exports"]

_One = Exported | ExportedTable

Exports = _One | Sequence[_One] | Mapping[str, _One]


def open_exports(sources: Exports, options: ReadOptions) -> list[OpenedExport]:
    """Open what a user named: mixers, files, patterns; files that follow one another are one export."""
    values: Any = sources.values() if isinstance(sources, Mapping) else sources
    several = isinstance(values, Collection) and not isinstance(values, str)
    items = list(values) if several else [values]

    def open_image(source: Any) -> OpenedExport:
        if options.patch_dimensions is not None:
            raise OptionError("patch_dimensions are for files without a mixer: the mixer has its own.")
        return open_export(source, options)

    if options.records is not None:
        if len(items) != 1:
            raise OptionError(f"records go with a single mixer; got {len(items)} sources.")
        return [open_image(items[0])]
    if any(isinstance(item, Mixer) for item in items):
        raise OptionError("A Mixer does not know where its shards are: name its file, or give records=[...].")
    opened: list[OpenedExport] = []
    locations = [found for item in items for found in find_sources(item, options.storage_options)]
    for images, group in groupby(locations, is_image):
        if not images:
            opened.append(open_files(list(group), options))
            continue
        for location in group:
            opened.append(open_image(location))
            check_first_runs(opened[-1].shards)
    if not opened:
        raise OptionError("There is nothing to read: name a mixer, TFRecord files, or a pattern of files.")
    return opened


def check_alike(exports: Sequence[OpenedExport]) -> None:
    """Check that the records of all exports hold the same, so that they can be read together."""
    first, *others = exports
    for other in others:
        if _summary(other) != _summary(first):
            raise OptionError(
                f"The exports do not go together: {first} holds {_summary(first)}, {other} holds "
                f"{_summary(other)}. Export them with the same options, or make a dataset of each."
            )


def _summary(export: OpenedExport) -> str:
    """What a record holds, in words."""
    content, kinds = export.content, {feature.name: feature.kind for feature in export.layout.features}
    bands = []
    for band in export.bands:
        if band.feature in content.labels:
            bands.append(f"{band.name} ({kinds[band.feature]}, {content.labels[band.feature]} per record)")
            continue
        depth = f", {band.depth} steps" if band.dims else ""
        whole = content.depths[band.feature]
        place = "" if whole == band.depth else f", from {band.first} of {whole} in {band.feature!r}"
        bands.append(f"{band.name} ({kinds[band.feature]}{depth}{place})")
    records = f"patches of {export.core.x} x {export.core.y} pixels and margins of {content.margin.xy}"
    if export.layout.sequences is not None:
        records = f"series of pixels, padded with {content.fill:g},"
    elif content.unit == "pixel":
        records = "single pixels"
    return f"{records} in {', '.join(bands)}"
