"""The tasks that read the bands of sampled pixels, and that select a number of pixels per class."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from xee_tf.blocks import BandRule, Block, BlockLayout, Pieces, assemble
from xee_tf.display import abbreviated, counted
from xee_tf.errors import OptionError
from xee_tf.georef import GeoRef, band_nodata, plane_array, raster_variables
from xee_tf.graph import BlockJob, ChunkedArray, Counted, add_task, chunk_grids, run_graph, work_on_blocks
from xee_tf.sampling import Choice, FindPixels, Sample, SamplePixels, first_plane
from xee_tf.sidecars import SampleCounts, TableColumn

__all__ = ["Sampler", "SourceBands", "choose_pixels", "join_samples", "no_pixels_error"]

_CHUNK_SIDE = 1024
_TASKS = "choose-"  # how the names of the tasks that are counted begin


@dataclass(frozen=True)
class SourceBands:
    """The bands of a raster: their columns, how they are assembled, and their chunks.

    Parameters
    ----------
    columns : tuple of TableColumn
        The column of each band, with the lengths of its additional dimensions as its shape.
    rules : tuple of BandRule
        Masked pixels become NaN.
    arrays : tuple of ChunkedArray
        Arrays of shape (y, x) or (step, y, x).
    """

    columns: tuple[TableColumn, ...]
    rules: tuple[BandRule, ...]
    arrays: tuple[ChunkedArray, ...]

    @classmethod
    def of(cls, dataset: xr.Dataset, georef: GeoRef) -> SourceBands:
        """Read the bands of a Dataset, which are assembled in a dtype that holds their values and NaN."""
        y, x = georef.y_dim, georef.x_dim
        columns, rules, arrays = [], [], []
        for key, variable in raster_variables(dataset, x, y):
            name = str(key)
            if variable.dtype.kind not in "biuf":
                raise OptionError(
                    f"Band {name!r} has dtype {variable.dtype}; expected numbers. Convert it, for example "
                    f"with ds[{name!r}].astype('float32'), or omit it."
                )
            steps = [dim for dim in variable.dims if dim not in (y, x) and variable.sizes[dim] != 1]
            column = TableColumn(name, "float", tuple(variable.sizes[dim] for dim in steps))
            array = plane_array(variable, steps, y, x, sides=(_CHUNK_SIDE, _CHUNK_SIDE))
            rule = BandRule.of(
                array.chunks,
                dtype=np.result_type(variable.dtype, np.float32).str,
                default=np.nan,
                nodata=band_nodata(variable, name),
                name=name,
            )
            columns.append(column)
            rules.append(rule)
            arrays.append(array)
        if not columns:
            raise OptionError("The image has no bands to sample.")
        return cls(tuple(columns), tuple(rules), tuple(arrays))

    @property
    def names(self) -> list[str]:
        """The names of the bands."""
        return [column.name for column in self.columns]

    def only(self, names: Collection[str]) -> SourceBands:
        """Return some of the bands; the first one if there are none."""
        chosen = [number for number, name in enumerate(self.names) if name in names] or [0]
        return SourceBands(
            tuple(self.columns[number] for number in chosen),
            tuple(self.rules[number] for number in chosen),
            tuple(self.arrays[number] for number in chosen),
        )


@dataclass(frozen=True)
class Sampler:
    """The task of one block: assemble its bands and select pixels.

    Parameters
    ----------
    columns, rules
        See `SourceBands`.
    find : callable
        See `SamplePixels`.
    drop_nulls : bool
        Whether to omit pixels that are masked in any band.
    choice : Choice or None
        The selection among the other pixels.
    classes_only : bool
        Whether to return only the values of the band that holds the classes.
    """

    columns: tuple[TableColumn, ...]
    rules: tuple[BandRule, ...]
    find: FindPixels
    drop_nulls: bool
    choice: Choice | None
    classes_only: bool = False

    def __call__(self, layout: BlockLayout, block: Block, pieces: Pieces, places: Any) -> Sample:
        """Return the pixels of a block, with their values."""
        window = layout.window(*block)
        numbers, rows, columns = self.find(places, window)
        bands, _ = assemble(window, pieces, self.rules)
        down, across = rows - window.top, columns - window.left
        values = np.concatenate([band[:, down, across] for band in bands]).T.astype(np.float64)
        sample = Sample(numbers, rows, columns, values, SampleCounts(len(numbers)))
        if self.drop_nulls:
            whole = ~np.isnan(values).any(axis=1)
            sample = replace(sample[whole], counts=SampleCounts(len(numbers), int((~whole).sum())))
        if self.choice is not None:
            sample = self.choice(sample, self.columns)
        if self.classes_only:
            band = self.choice.band if self.choice is not None else None
            first = 0 if band is None else first_plane(self.columns, band)
            sample = replace(sample, values=sample.values[:, first : first + (band is not None)])
        return sample


def join_samples(samples: Sequence[Sample], choice: Choice | None, columns: Sequence[TableColumn]) -> Sample:
    """Join the samples of all blocks, in the order of the features, then row-major.

    Raises
    ------
    OptionError
        If there are no pixels.
    """
    numbers, rows, across, sampled = (
        np.concatenate(part)
        for part in zip(*((s.numbers, s.rows, s.columns, s.values) for s in samples), strict=True)
    )
    counts = sum((s.counts for s in samples), start=SampleCounts())
    classes = frozenset[float]().union(*(s.classes for s in samples))
    sample = Sample(numbers, rows, across, sampled, counts)
    if choice is not None:
        sample = choice(sample, columns)
    if not len(sample.numbers):
        raise no_pixels_error(choice, classes, counts.dropped)
    if choice is not None:
        sample = replace(sample, counts=counts + choice.short(sample, columns))
    return sample[np.lexsort((sample.columns, sample.rows, sample.numbers))]


def no_pixels_error(choice: Choice | None, classes: Collection[float], dropped: int) -> OptionError:
    """Create the error for a sample without pixels; `classes` are the classes of pixels that were found."""
    omitted = f" ({counted(dropped, 'masked pixel')} dropped)" if dropped else ""
    if choice is not None and isinstance(choice.quota, dict) and classes:
        wanted = abbreviated(key for key, count in choice.quota.items() if count)
        found = abbreviated(f"{each:.15g}" for each in sorted(classes))
        return OptionError(
            f"There are no pixels to write: n selects the classes {wanted}, but the sampled pixels have the "
            f"classes {found} in the band {choice.band!r}{omitted}."
        )
    return OptionError(
        f"There are no pixels to write{omitted}. To keep masked pixels, pass drop_nulls=False; to include "
        "all pixels that a polygon touches, pass all_touched=True."
    )


def choose_pixels(
    bands: SourceBands,
    places: SamplePixels,
    layout: BlockLayout,
    choice: Choice | None,
    *,
    drop_nulls: bool,
    progress: bool,
) -> Sample:
    """Select pixels before their patches are read; bands are only read if the selection depends on them.

    Parameters
    ----------
    bands : SourceBands
        The bands.
    places : SamplePixels
        The pixels to select from.
    layout : BlockLayout
        The blocks of `places`.
    choice : Choice or None
        The selection. Default: all pixels, also masked ones.
    drop_nulls, progress : bool
        See `xee_tf.sample_table`.
    """
    needs_values = choice is not None and (drop_nulls or choice.band is not None)
    if not needs_values:
        found = [places.find(each, layout.window(*block)) for block, each in places.by_block.items()]
        samples = [
            Sample(*pixels, np.empty((len(pixels[0]), 0)), SampleCounts(len(pixels[0]))) for pixels in found
        ]
        return join_samples(samples, choice, ())
    assert choice is not None
    if not drop_nulls and choice.band is not None:
        bands = bands.only([choice.band])
        layout = replace(layout, planes=chunk_grids(bands.arrays))
    sampler = Sampler(bands.columns, bands.rules, places.find, drop_nulls, choice, classes_only=True)
    run, blocks = uuid.uuid4().hex[:12], places.by_block
    job = BlockJob(f"{_TASKS}{run}", bands.arrays, bands.names, layout, sampler, blocks=blocks, values=blocks)
    graph, [sampled] = work_on_blocks([job])
    columns = () if choice.band is None else (TableColumn(choice.band),)
    chosen = add_task(graph.tasks, f"chosen-{run}", join_samples, list(sampled.values()), choice, columns)
    sample: Sample = run_graph(
        graph.delayed(f"choose-{run}", chosen), Counted(_TASKS, "block", "searched") if progress else None
    )
    return sample
