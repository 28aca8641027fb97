"""Resume exports: identify what they write, and find those that are complete."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from xee_tf.export.job import ExportJob
from xee_tf.export.plan import ExportPlan
from xee_tf.export.result import ExportResult
from xee_tf.identity import Content, RunIdentity, run_identity
from xee_tf.sidecars import (
    ExportNames,
    ImageManifest,
    ShardInfo,
    deleted_error,
    find_complete,
)

__all__ = ["complete_export", "identify_export", "shard_files", "still_complete"]

# Options that do not change what is written.
_WITHOUT_EFFECT = frozenset({"if_exists"})


def identify_export(job: ExportJob, identity: str | None) -> RunIdentity:
    """Return the identity of an export; see `xee_tf.identity.IdentityOptions` for `identity`."""
    plan = job.plan
    parts: dict[str, Any] = {
        f"the option {name}": value
        for name, value in vars(plan.options).items()
        if name not in _WITHOUT_EFFECT
    }
    for each in fields(plan.grid):
        parts[f"the {each.name} of the grid"] = getattr(plan.grid, each.name)
    parts["the bands"] = [band.name for band in plan.bands]
    for band in plan.bands:
        parts[f"the band {band.name!r}"] = band
    parts["the rules for the pixels of bands"] = plan.band_plan.rules
    if plan.selection is not None:
        parts["the selected patches"] = Content.of(plan.selection.patches)
    for dim, values in plan.band_plan.coords.items():
        parts[f"the coordinate {dim!r}"] = Content.of(values)
    return run_identity(parts, dict(zip(plan.band_plan.sources, job.arrays, strict=True)), identity)


def complete_export(plan: ExportPlan, identity: RunIdentity | None, compute: bool) -> ExportResult | None:
    """Return the result of an export that is complete already; None if there is none, or it is not resumed.

    See `find_complete`.
    """
    names = plan.names
    if identity is None:
        return None
    mixer = names.mixer if plan.mixer else None
    manifest = find_complete(
        ImageManifest, names.manifest, names.prefix, identity, mixer=mixer, compute=compute
    )
    if manifest is None:
        return None  # `begin` raises an error if some files exist
    return ExportResult(
        files=shard_files(names, manifest),
        mixer=mixer,
        index=names.index if plan.options.index else None,
        manifest=names.manifest,
        grid=plan.grid,
        records_per_patch=plan.record.per_patch,
        selected=None if plan.selection is None else plan.patches,
        left_out=plan.left_out,
        resumed=len(manifest.shards),
        _statistics=manifest.statistics,
    )


def still_complete(plan: ExportPlan, identity: RunIdentity) -> ExportResult:
    """Return the result of an export that was complete when a Delayed was created.

    Raises
    ------
    DestinationError
        If it no longer is.
    """
    found = complete_export(plan, identity, True)
    if found is None:
        raise deleted_error(plan.names.prefix)
    return found


def shard_files(names: ExportNames, manifest: ImageManifest) -> tuple[ShardInfo, ...]:
    """Return the shards of an export as its result describes them."""
    folder = names.prefix.parent
    return tuple(replace(shard.file, path=folder.child(shard.file.path).url) for shard in manifest.shards)
