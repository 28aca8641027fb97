"""The Dask graph of an export: blocks to parts, parts to shards, shards to a commit."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, zip_longest
from typing import Any

from dask.delayed import Delayed
from dask.tokenize import tokenize

from xee_tf.export.bands import Bands
from xee_tf.export.commit import ImageCommit
from xee_tf.export.encode import BlockEncoder
from xee_tf.export.plan import ExportPlan
from xee_tf.export.result import ExportNames, ExportResult
from xee_tf.geometry import Size
from xee_tf.graph import Sources, Tasks, block_tasks, gather, in_order, on_cluster, to_delayed
from xee_tf.shards.folder_store import PartStore
from xee_tf.shards.store import ShardStore
from xee_tf.sidecars import ImageManifest

__all__ = ["ExportJob", "export_graph"]

_NAME = "tfrecord"


@dataclass(frozen=True)
class ExportJob:
    """One export that is to be done.

    Parameters
    ----------
    plan : ExportPlan
    bands : Bands
    names : ExportNames
    label : str
        What it is called among its neighbours: the step of a split dimension.
    """

    plan: ExportPlan
    bands: Bands
    names: ExportNames
    label: str = ""

    @cached_property
    def run(self) -> str:
        """A name of its own for every graph: what an interrupted run left is never taken for this one's."""
        return uuid.uuid4().hex[:12]

    @cached_property
    def store(self) -> ShardStore:
        """Where parts and shards wait."""
        return PartStore.begin(self.names)


def export_graph(jobs: Sequence[ExportJob]) -> Delayed:
    """One graph for all jobs, so that a chunk that several of them need is loaded once.

    Returns
    -------
    Delayed
        Of an ExportResult; of a dictionary of them by label, if the jobs have labels.
    """
    chained = not on_cluster() and (len(jobs) > 1 or jobs[0].plan.blocks != (1, 1))
    sources = Sources.of_planes([array for job in jobs for array in job.bands.arrays], chained=chained)
    tasks: Tasks = {}
    blocks = []
    planes = 0
    for job in jobs:
        count = len(job.plan.block_layout.planes)
        own = replace(sources, keys=sources.keys[planes : planes + count])
        added, made = block_tasks(job.plan.block_layout, own, _encoder(job), f"{_NAME}-encode-{job.run}")
        tasks |= added
        blocks.append(made)
        planes += count
    # Block by block over all jobs: what a chunk holds for several of them is used while it is there.
    order = [
        key for row in zip_longest(*(made.values() for made in blocks)) for key in row if key is not None
    ]
    if chained:
        renamed = in_order(tasks, order, f"{_NAME}-order-{uuid.uuid4().hex[:12]}")
        blocks = [{block: renamed[key] for block, key in made.items()} for made in blocks]
        order = list(renamed.values())
    commits = [_finish(tasks, job, made) for job, made in zip(jobs, blocks, strict=True)]
    key = commits[0]
    if jobs[0].label:
        key = gather(tasks, f"{_NAME}-all-{jobs[0].run}", _by_label, commits, [job.label for job in jobs])
    return to_delayed(tasks, f"{_NAME}-export-{jobs[0].run}", key, sources, order)


def _encoder(job: ExportJob) -> BlockEncoder:
    plan = job.plan
    return BlockEncoder(
        grid=plan.grid,
        record=plan.record,
        rules=plan.rules,
        mask_plane=job.bands.mask_plane,
        group=plan.block_layout.x.group,
        patches_per_shard=plan.patches_per_shard,
        masked_threshold=plan.masked_threshold,
        count_masked=plan.masked_threshold < 1 or plan.options.index,
        store=job.store,
    )


def _finish(tasks: Tasks, job: ExportJob, blocks: dict[tuple[int, int], Any]) -> Any:
    """Add the tasks that join shards and commit them; the key of the last."""
    plan, grid, layout = job.plan, job.plan.grid, job.plan.block_layout
    row_owner, column_owner = (
        list(chain.from_iterable([block] * len(axis.owned(block)) for block in range(len(axis))))
        for axis in (layout.y, layout.x)
    )
    shards = []
    for number in range(plan.shards):
        first = number * plan.patches_per_shard
        (top, left), (bottom, right) = (
            grid.locate(patch) for patch in (first, min(first + plan.patches_per_shard, len(grid)) - 1)
        )
        if bottom > top:
            left, right = 0, grid.columns - 1
        needed = [
            blocks[row, column]
            for row in range(row_owner[top], row_owner[bottom] + 1)
            for column in range(column_owner[left], column_owner[right] + 1)
            if (row, column) in blocks
        ]
        key = (f"{_NAME}-shard-{job.run}", number)
        record = first * plan.record.per_patch
        shards.append(gather(tasks, key, job.store.join, needed, number, record))
    commit = ImageCommit(
        names=job.names,
        grid=grid,
        records_per_patch=plan.record.per_patch,
        store=job.store,
        manifest=_manifest(job),
        mixer=plan.mixer,
        index=plan.options.index,
        overwrite=plan.options.if_exists == "overwrite",
    )
    return gather(tasks, f"{_NAME}-commit-{job.run}", commit, shards)


def _manifest(job: ExportJob) -> ImageManifest:
    """What is known of an export before a pixel is read."""
    plan, bands = job.plan, job.bands
    options: dict[str, Any] = {
        {"patch": "patch_dimensions", "kernel": "kernel_size"}.get(name, name): list(value.xy)
        if isinstance(value, Size)
        else value
        for name, value in vars(plan.options).items()
        if name not in ("index", "if_exists", "tensor_depths")  # the bands have their depths
    }
    options["default_value"] = float(options["default_value"])
    names = [getattr(array, "name", None) or tokenize(array) for array in bands.arrays]
    return ImageManifest(
        record="SequenceExample" if plan.options.sequence_data else "Example",
        bands=bands.stored,
        coords=bands.coords,
        default_value=float(plan.options.default_value),
        ragged=plan.options.drop_masked_steps,
        kernel=plan.options.kernel_size,
        grid=plan.grid,
        options=options,
        key=tokenize(names, plan.grid, plan.rules, bands.mask_plane, options),
    )


def _by_label(labels: Sequence[str], results: Sequence[ExportResult]) -> dict[str, ExportResult]:
    return dict(zip(labels, results, strict=True))
