"""What an export or a file of records holds, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dask.utils import format_bytes

from xee_tf.display import Facts, Listing, aligned, counted
from xee_tf.errors import RecordError
from xee_tf.georef import bands_text, bounds, grid_rows, per_pixel
from xee_tf.labels import label_steps
from xee_tf.reading.content import read_order
from xee_tf.reading.opened import OpenedExport
from xee_tf.reading.opening import open_export
from xee_tf.reading.options import ReadOptions
from xee_tf.shards import first_record, open_shards
from xee_tf.sidecars import dim_lengths, find_sources, is_image
from xee_tf.storage import Location, PathLike

__all__ = ["inspect_path"]


def inspect_path(
    path: PathLike,
    *,
    kernel_size: int | Sequence[int] | None = None,
    tensor_depths: Mapping[str, int] | None = None,
) -> str:
    """What a path holds: patches, place, bands and shards of an export, or the first record of a file.

    Parameters
    ----------
    path : str or path-like
        A mixer, a manifest, a prefix or folder, or a TFRecord file.
    kernel_size, tensor_depths : optional
        As for `xee_tf.open_image`.
    """
    location, *_ = find_sources(path)
    if is_image(location):
        options = ReadOptions(kernel_size=kernel_size, tensor_depths=tensor_depths)
        return _image_text(open_export(location, options))
    return _record_text(location)


def _image_text(export: OpenedExport) -> str:
    grid = export.grid
    left, bottom, right, top = bounds(grid.affine, grid.shape.window)
    patches, raster, _ = grid_rows(grid)
    size = format_bytes(sum(shard.size for shard in export.shards))
    kind = "Example" if export.content.layout.sequences is None else "SequenceExample"
    records = counted(len(grid) * export.per_patch, kind) + per_pixel(export.per_patch)
    shards = [
        (f"{shard.location.name}  {counted(shard.records, 'record')}  {format_bytes(shard.size)}",)
        for shard in export.shards
    ]
    return aligned(
        [
            patches,
            raster,
            ("x", f"{left!r} to {right!r}, steps of {grid.affine.a!r}"),
            ("y", f"{bottom!r} to {top!r}, steps of {grid.affine.e!r}"),
            ("bands", _bands(export)),
            *_steps(export),
            ("records", f"{records}; {counted(len(export.shards), 'shard')}, {size}"),
            *Listing("shards", shards, most=5).text_rows(),
        ]
    )


def _record_text(location: Location) -> str:
    [shard] = open_shards([location])
    data = first_record(shard)
    if data is None:
        raise RecordError(f"{shard} holds no record.")
    layout, steps = read_order(data)
    values: Facts = []
    for feature in layout.features:
        held = counted(feature.size, "value")
        if feature.name in steps:
            held = counted(steps[feature.name], "step") + (f" of {held}" if feature.size > 1 else "")
        values.append((feature.name, f"{feature.kind}, {held}"))
    kind = "an Example" if layout.sequences is None else "a SequenceExample"
    return f"The first record of {shard}, {kind}, holds\n{aligned(values)}"


def _bands(export: OpenedExport) -> str:
    """Names of the bands, with their further dimensions."""
    names = [f"{band.name} ({', '.join(band.dims)})" if band.dims else band.name for band in export.bands]
    collapsed = {band.feature for band in export.bands if band.feature != band.name}
    return "".join(
        [
            bands_text(names, [feature.kind for feature in export.layout.features]),
            *(f"; collapsed into the feature {feature}" for feature in collapsed),
        ]
    )


def _steps(export: OpenedExport) -> Facts:
    """The further dimensions: how many steps, and from where to where."""
    rows = []
    for dim, length in dim_lengths(export.bands).items():
        text = counted(length, "step")
        if dim in export.coords:
            labels = label_steps(export.coords[dim])
            text += f", {labels[0]}" + (f" to {labels[-1]}" if length > 1 else "")
        rows.append((dim, text))
    return rows
