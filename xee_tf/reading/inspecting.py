"""Describe an export or a TFRecord file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dask.utils import format_bytes

from xee_tf.display import Facts, Listing, Summary, counted
from xee_tf.errors import MissingShardError, RecordError
from xee_tf.geometry import PatchGrid
from xee_tf.georef import bands_text, bounds, grid_picture, grid_rows, per_pixel
from xee_tf.labels import label_steps
from xee_tf.options import READ_SPELLING, spelled
from xee_tf.reading.first_record import parse_record
from xee_tf.reading.opened import OpenedExport
from xee_tf.reading.opening import open_export
from xee_tf.reading.options import ReadOptions
from xee_tf.records import RecordLayout
from xee_tf.shards import first_record, open_shards
from xee_tf.sidecars import (
    Exported,
    ExportedTable,
    dim_lengths,
    find_sources,
    is_image,
    missing_error,
    require_missing,
)
from xee_tf.statistics import statistics_cells
from xee_tf.storage import Location

__all__ = ["Inspection", "Kind", "inspect"]

Kind = Literal["Example", "SequenceExample"]


@dataclass(frozen=True)
class Inspection:
    """Description of an export or a TFRecord file, returned by `inspect`.

    Parameters
    ----------
    path : str
        The mixer or manifest of an export, or a TFRecord file.
    kind : {"Example", "SequenceExample"}
        The type of the records.
    names : tuple of str
        Names of the bands of an export, or of the features in the first record of a file.
    files : tuple of str
        The TFRecord files, in the order of the records.
    grid : PatchGrid or None
        The patch grid of an export; None for a file.
    records : int or None
        Number of records of an export; None for a file, whose records are not counted.

    Examples
    --------
    >>> import pandas as pd, tempfile, xee_tf
    >>> sites = pd.DataFrame({"B4": [0.1, 0.2]})
    >>> result = xee_tf.export_table(sites, tempfile.mkdtemp() + "/sites")
    >>> found = inspect(result)
    >>> found.kind, found.names, found.grid is None
    ('Example', ('B4',), True)
    """

    path: str
    kind: Kind
    names: tuple[str, ...]
    files: tuple[str, ...]
    grid: PatchGrid | None
    records: int | None
    _summary: Summary

    def __repr__(self) -> str:
        return self._summary.text()

    def _repr_html_(self) -> str:
        return self._summary.html()


@spelled(READ_SPELLING)
def inspect(
    path: Exported | ExportedTable,
    *,
    kernel_size: int | Sequence[int] | None = None,
    tensor_depths: Mapping[str, int] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Inspection:
    """Describe the patches, georeference, bands and shards of an export, or the first record of a file.

    Parameters
    ----------
    path : str, path-like, ExportResult or TableResult
        A mixer, a manifest, the prefix or folder of an export, or a TFRecord file, as a local path or an
        fsspec URL; or an export result.
    kernel_size : int or (int, int), optional
        The kernel size ``(width, height)`` of the export in pixels. It is required if there is no manifest
        and the kernel cannot be inferred from the records.
    tensor_depths : mapping of str to int, optional
        Number of values per pixel of array bands. It is required if there is no manifest and the depths
        cannot be inferred from the records.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    Inspection
        A description with a text repr, and an HTML repr for notebooks.

    Raises
    ------
    MissingShardError
        If the export was not found, or shards are missing.
    MixerError
        If the mixer or the manifest is not valid.
    OptionError
        If the path is not that of a single export, or an option is not valid.
    RecordError
        If a shard is truncated, corrupt or empty.

    Examples
    --------
    >>> import pandas as pd, tempfile, xee_tf
    >>> sites = pd.DataFrame({"B4": [0.1, 0.2], "class": [1, 2]})
    >>> result = xee_tf.export_table(sites, tempfile.mkdtemp() + "/sites")
    >>> found = inspect(result.path)
    >>> print(found)
    <xee_tf.Inspection ...sites.tfrecord.gz>
      first record  an Example
      B4            float, 1 value
      class         float, 1 value
    >>> found.names
    ('B4', 'class')
    """
    location, *_ = find_sources(path, storage_options)
    if not is_image(location):
        try:
            return _inspect_file(location)
        except MissingShardError:
            require_missing(location)
            raise missing_error(
                location,
                f"{location} was not found: expected a mixer, a manifest, the prefix or folder of an export, "
                "or a TFRecord file.",
            ) from None
    options = ReadOptions(
        kernel_size=kernel_size, tensor_depths=tensor_depths, storage_options=storage_options
    )
    export = open_export(location, options)
    return _inspect_export(str(location), export)


def _inspect_export(path: str, export: OpenedExport) -> Inspection:
    grid, kind = export.grid, _kind(export.content.layout)
    left, bottom, right, top = bounds(grid.affine, grid.shape.window)
    patches, raster, _ = grid_rows(grid)
    size = format_bytes(sum(shard.size for shard in export.shards))
    patches_held = len(grid) if export.patches is None else len(export.patches)
    records = patches_held * export.records_per_patch
    held = counted(records, kind) + per_pixel(export.records_per_patch)
    rows = [
        patches,
        raster,
        ("x", f"{left!r} to {right!r}, steps of {grid.affine.a!r}"),
        ("y", f"{bottom!r} to {top!r}, steps of {grid.affine.e!r}"),
        ("bands", _bands(export)),
        *_steps(export),
        ("records", f"{held}; {counted(len(export.shards), 'shard')}, {size}"),
    ]
    shards = [
        (f"{shard.location.name}  {counted(shard.records, 'record')}  {format_bytes(shard.size)}",)
        for shard in export.shards
    ]
    values = Listing("values", statistics_cells(export.statistics or {}), most=20, noun="band", is_whole=True)
    listings = [values, Listing("shards", shards, most=5)]
    return Inspection(
        path,
        kind,
        tuple(band.name for band in export.bands),
        tuple(str(shard.location) for shard in export.shards),
        grid,
        records,
        Summary("Inspection", path, rows, listings=listings, picture=grid_picture(grid)),
    )


def _inspect_file(location: Location) -> Inspection:
    [shard] = open_shards([location])
    data = first_record(shard)
    if data is None:
        raise RecordError(f"{shard} contains no records.")
    layout, steps = parse_record(data)
    kind = _kind(layout)
    rows = [("first record", f"a{'n' if kind == 'Example' else ''} {kind}")]
    for feature in layout.features:
        held = counted(feature.size, "byte" if feature.kind == "bytes" else "value")
        if feature.name in steps:
            held = counted(steps[feature.name], "step") + (f" of {held}" if feature.size > 1 else "")
        rows.append((feature.name, f"{feature.kind}, {held}"))
    path, names = str(location), tuple(feature.name for feature in layout.features)
    return Inspection(path, kind, names, (path,), None, None, Summary("Inspection", path, rows))


def _kind(layout: RecordLayout) -> Kind:
    return "Example" if layout.sequences is None else "SequenceExample"


def _bands(export: OpenedExport) -> str:
    """Return the names of the bands, with their extra dimensions."""
    names = [f"{band.name} ({', '.join(band.dims)})" if band.dims else band.name for band in export.bands]
    collapsed = {band.feature for band in export.bands if band.feature != band.name}
    return "".join(
        [
            bands_text(names, [feature.kind for feature in export.layout.features]),
            *(f"; collapsed into the feature {feature}" for feature in collapsed),
        ]
    )


def _steps(export: OpenedExport) -> Facts:
    """Return rows with the number of steps and the range of each extra dimension."""
    rows = []
    for dim, length in dim_lengths(export.bands).items():
        text = counted(length, "step")
        if dim in export.coords:
            labels = label_steps(export.coords[dim])
            text += f", {labels[0]}" + (f" to {labels[-1]}" if length > 1 else "")
        rows.append((dim, text))
    return rows
