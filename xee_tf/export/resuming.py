"""Resume exports: identify what they write, and find those that are complete."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xee_tf.errors import DestinationExistsError
from xee_tf.export.job import ExportJob
from xee_tf.export.result import ExportResult
from xee_tf.identity import Content, RunIdentity, explain_other, run_identity
from xee_tf.sidecars import ImageManifest, read_manifest
from xee_tf.storage import Staging, clear_leftovers, recover

__all__ = ["complete_export", "identify_export"]

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
    parts["the grid of patches"] = repr(plan.grid)
    parts["the list of bands"] = [str(band) for band in plan.bands]
    parts["how the bands are written"] = repr(plan.band_plan.rules)
    for dim, values in plan.band_plan.coords.items():
        parts[f"the coordinate {dim!r}"] = Content.of(values)
    return run_identity(parts, dict(zip(job.names, job.arrays, strict=True)), identity)


def complete_export(job: ExportJob, compute: bool) -> ExportResult | None:
    """Return the result of an export that is complete already; None if there is none, or it is not resumed.

    With `compute`, a commit that was interrupted is undone first, and what dead runs left is deleted.

    Raises
    ------
    DestinationExistsError
        If there is an export that was written from something else.
    """
    names = job.plan.names
    if job.identity is None:
        return None
    if compute:
        recover(Staging.begin(names.prefix))
    manifest = read_manifest(names.manifest)
    marked = names.mixer.exists() if job.plan.mixer else True
    if not isinstance(manifest, ImageManifest) or not marked:
        return None
    if difference := explain_other(job.identity, manifest.identity):
        raise DestinationExistsError(
            f"{names.prefix} exists and cannot be resumed: {difference}. Choose another prefix, or replace "
            "it with if_exists='overwrite'."
        )
    listed = names.prefix.listed()
    if any(listed.get(shard.file.path, {}).get("size") != shard.file.bytes for shard in manifest.shards):
        return None  # `begin` then raises an error about the files that exist
    if compute:
        clear_leftovers(names.prefix)
    folder = names.prefix.parent
    return ExportResult(
        files=tuple(replace(shard.file, path=folder.child(shard.file.path).url) for shard in manifest.shards),
        mixer=names.mixer if job.plan.mixer else None,
        index=names.index if job.plan.options.index else None,
        manifest=names.manifest,
        grid=job.plan.grid,
        records_per_patch=job.plan.record.per_patch,
    )
