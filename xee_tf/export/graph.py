"""Build the Dask graph of an export: from blocks to runs, from runs to shards, from shards to a commit."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from dask.tokenize import tokenize

from xee_tf.export.commit import ImageCommit
from xee_tf.export.encode import BlockEncoder
from xee_tf.export.job import ExportJob
from xee_tf.export.joining import ShardTasks, blocks_to_do, rows_before, task_name
from xee_tf.export.plan import ExportPlan
from xee_tf.export.result import ExportResult
from xee_tf.export.resuming import still_complete
from xee_tf.export.tallies import tallied_bands
from xee_tf.geometry import Size
from xee_tf.graph import (
    BlockJob,
    Delayed,
    Graph,
    TaskRef,
    add_task,
    first_of,
    order_blocks,
    work_on_blocks,
)
from xee_tf.shards import FileStore, ShardStore, run_sizes
from xee_tf.sidecars import ImageManifest

__all__ = ["BLOCK_TASKS", "complete_graph", "export_graph"]

_ENCODE = "encode"
BLOCK_TASKS = task_name(_ENCODE, "")
"""How the names of the tasks of blocks begin."""


def export_graph(
    jobs: Sequence[ExportJob],
    stores: Sequence[ShardStore],
    complete: Mapping[str, ExportResult | ExportJob],
    order: Sequence[str],
    *,
    in_this_process: bool = False,
) -> Delayed:
    """Build one graph for all jobs, so that a chunk that several jobs need is loaded once.

    Parameters
    ----------
    jobs : sequence of ExportJob
        The exports.
    stores : sequence of ShardStore
        A store for each job.
    complete : mapping of str to ExportResult or ExportJob
        Exports that are complete already, such as other steps of a split dimension, by their labels: the
        result or, if it is looked for again when the graph is computed, the job.
    order : sequence of str
        The labels of all exports.
    in_this_process : bool
        Whether all tasks share the memory of this process.

    Returns
    -------
    Delayed
        Computes an ExportResult or, if the jobs have labels, a dict of them by label.
    """
    # Every graph has unique keys, so that results of an interrupted write are never used.
    tokens = [uuid.uuid4().hex[:12] for _ in jobs]
    finished = [store.finished_shards() for store in stores]
    todo = [blocks_to_do(job.plan, done) for job, done in zip(jobs, finished, strict=True)]
    in_rows = not isinstance(stores[0], FileStore)  # the rows of blocks are written in turn
    waits = in_rows and in_this_process
    graph, blocks = work_on_blocks(
        [
            BlockJob(
                task_name(_ENCODE, token),
                job.arrays,
                job.plan.band_plan.sources,
                job.plan.block_layout,
                _encoder(job.plan, store, frozenset(done)),
                chosen,
                rows_before(chosen, token, job.plan.rows_in_flight) if waits else {},
            )
            for job, store, token, done, chosen in zip(jobs, stores, tokens, finished, todo, strict=True)
        ]
    )
    joiners = [
        ShardTasks(graph, job.plan, store, token, parts, done)
        for job, store, token, parts, done in zip(jobs, stores, tokens, blocks, finished, strict=True)
    ]
    ordered = order_blocks(
        graph,
        blocks,
        task_name("order", tokens[0]),
        run_sizes if joiners[0].in_memory else first_of,
        # Dask then writes a row of blocks before it continues with the next one.
        [
            rows_before(chosen, token, 1) if in_rows else {}
            for chosen, token in zip(todo, tokens, strict=True)
        ],
    )
    results = []
    for job, store, token, joiner, done in zip(jobs, stores, tokens, joiners, ordered, strict=True):
        commit = _commit(job, store, len(joiner.finished))
        results.append(add_task(graph.tasks, task_name("commit", token), commit, joiner.join(done)))
    found = dict(zip((job.label for job in jobs), results, strict=True))
    return _delayed(graph, found, complete, order)


def complete_graph(jobs: Sequence[ExportJob]) -> Delayed:
    """Build a graph for exports that are all complete already: it checks that they still are."""
    return _delayed(Graph(), {}, {job.label: job for job in jobs}, [job.label for job in jobs])


def _delayed(
    graph: Graph,
    results: Mapping[str, TaskRef],
    complete: Mapping[str, ExportResult | ExportJob],
    order: Sequence[str],
) -> Delayed:
    """Return a Delayed of the result of all exports, by label if they have one."""
    token = uuid.uuid4().hex[:12]
    found: dict[str, Any] = {**results, **complete}
    for number, (label, each) in enumerate(complete.items()):
        if isinstance(each, ExportJob):
            key = (task_name("complete", token), number)
            found[label] = add_task(graph.tasks, key, still_complete, each.plan, each.identity)
    result = found[order[0]]
    if order[0]:
        refs = [found[label] for label in order]
        result = add_task(graph.tasks, task_name("all", token), _by_label, list(order), refs)
    return graph.delayed(task_name("export", token), result)


def _encoder(plan: ExportPlan, store: ShardStore, finished: frozenset[int]) -> BlockEncoder:
    return BlockEncoder(
        grid=plan.grid,
        record=plan.record,
        rules=plan.band_plan.rules,
        has_mask=plan.band_plan.has_mask,
        shards=plan.patch_shards,
        masked_threshold=plan.masked_threshold,
        count_masked=plan.masked_threshold < 1 or plan.options.index,
        store=store,
        finished=finished,
        tallied=tallied_bands(plan.band_plan) if plan.options.statistics else (),
    )


def _commit(job: ExportJob, store: ShardStore, resumed: int) -> ImageCommit:
    plan = job.plan
    return ImageCommit(
        names=plan.names,
        grid=plan.grid,
        records_per_patch=plan.record.per_patch,
        store=store,
        manifest=_manifest(job),
        mixer=plan.mixer,
        index=plan.options.index,
        resumed=resumed,
        selected=None if plan.selection is None else plan.patches,
        left_out=plan.left_out,
    )


def _manifest(job: ExportJob) -> ImageManifest:
    """Return the part of the manifest that is known before pixels are read."""
    plan, bands = job.plan, job.plan.band_plan
    options: dict[str, Any] = {
        name: list(value.xy) if isinstance(value, Size) else value
        for name, value in vars(plan.options).items()
        if name not in ("index", "statistics", "if_exists", "tensor_depths")  # depths are with the bands
    }
    options["default_value"] = float(options["default_value"])
    names = [getattr(array, "name", None) or tokenize(array) for array in job.arrays]
    chosen = () if plan.selection is None else (plan.selection.patches,)
    return ImageManifest(
        record="SequenceExample" if plan.options.sequence_data else "Example",
        bands=bands.bands,
        coords=bands.coords,
        default_value=float(plan.options.default_value),
        ragged=plan.options.drop_masked_steps,
        kernel=plan.options.kernel_size,
        grid=plan.grid,
        options=options,
        key=tokenize(names, plan.grid, bands.rules, bands.has_mask, options, *chosen),
        identity=None if job.identity is None else job.identity.to_json(),
    )


def _by_label(labels: Sequence[str], results: Sequence[ExportResult]) -> dict[str, ExportResult]:
    return dict(zip(labels, results, strict=True))
