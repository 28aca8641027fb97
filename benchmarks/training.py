"""Batches for training: from exported records, and straight from the raster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.measure import Measurement, best_times
from benchmarks.pixels import raster, tiled
from xee_tf import PatchSequence, export_image, tf_dataset

PATCH, BATCH = 256, 16
INPUTS, TARGETS = ["blue", "green"], ["red"]


def run(small: bool) -> Iterator[Measurement]:
    side = 1024 if small else 6144
    bands = tiled(side, side)
    folder = Path(tempfile.mkdtemp())
    for kind, options in {"gzip": {}, "plain": {"compressed": False}}.items():
        source = raster(bands, 1024)
        export_image(source, folder / kind, patch_dimensions=PATCH, max_file_size=2**26, **options)
    raster(bands, 1024).to_zarr(folder / "scene.zarr", consolidated=False)
    count = (side // PATCH) ** 2
    totals: dict[str, float] = {}

    def consume(name: str, data: Callable[[], Iterable[Any]]) -> Callable[[], None]:
        def read() -> None:
            seen, total = 0, 0.0
            for images, targets in data():
                seen += len(images)
                total += float(np.asarray(images)[:, 0, 0].sum(dtype="float64")) + len(targets)
            assert seen == count
            totals[name] = total

        return read

    cases = {
        f"{pipeline} {kind}": consume(kind, lambda make=make, kind=kind: make(folder, kind))  # type: ignore[misc]
        for kind in ("gzip", "plain")
        for pipeline, make in (("tf_dataset", with_tf_dataset), ("tf.data", with_tensorflow))
    }
    cases["PatchSequence"] = consume("PatchSequence", lambda: with_patch_sequence(folder))
    cases["xbatcher"] = consume("xbatcher", lambda: with_xbatcher(folder))
    cases["blocks"] = consume("blocks", lambda: with_xbatcher_blocks(folder))
    times = best_times(cases, 1 if small else 3)
    assert len({round(total / totals["gzip"], 9) for total in totals.values()}) == 1
    speed = {name: round(count / seconds) for name, seconds in times.items()}
    titles = {"gzip": "shuffled batches of 256 x 256 patches, 3 bands", "plain": "the same, uncompressed"}
    for kind, title in titles.items():
        yield Measurement(
            title,
            "hand-tuned tf.data pipeline over the same files",
            times[f"tf.data {kind}"] / times[f"tf_dataset {kind}"],
            "times",
            1,
            True,
            f"{speed[f'tf_dataset {kind}']} and {speed[f'tf.data {kind}']} patches/s",
        )
    yield Measurement(
        "shuffled batches from gzipped records",
        "xbatcher's Keras loader, shuffled patches from Zarr with chunks of 1024 x 1024",
        times["xbatcher"] / times["tf_dataset gzip"],
        "times",
        3,
        True,
        f"{speed['tf_dataset gzip']} and {speed['xbatcher']} patches/s; {speed['blocks']} if whole chunks "
        "are loaded in order",
    )
    yield Measurement(
        "PatchSequence: shuffled batches from Zarr with chunks of 1024 x 1024, without files",
        "xbatcher's Keras loader, shuffled patches",
        times["xbatcher"] / times["PatchSequence"],
        "times",
        3,
        True,
        f"{speed['PatchSequence']} and {speed['xbatcher']} patches/s",
    )
    shutil.rmtree(folder)


def with_tf_dataset(folder: Path, kind: str) -> Iterable[Any]:
    return tf_dataset(
        folder / f"{kind}-mixer.json", inputs=INPUTS, targets=TARGETS, batch_size=BATCH, shuffle=64
    )


def with_tensorflow(folder: Path, kind: str) -> Iterable[Any]:
    """Read the same files as an expert would without xee_tf."""
    import tensorflow as tf

    names = [*INPUTS, *TARGETS]
    spec = {name: tf.io.FixedLenFeature([PATCH, PATCH], tf.float32) for name in names}

    def parse(batch: Any) -> Any:
        found = tf.io.parse_example(batch, spec)
        return tf.stack([found[name] for name in INPUTS], -1), tf.stack([found[name] for name in TARGETS], -1)

    files = tf.data.Dataset.list_files(f"{folder}/{kind}-*.tfrecord*")
    compression = "GZIP" if kind == "gzip" else None
    return (
        files.interleave(
            lambda file: tf.data.TFRecordDataset(file, compression, buffer_size=8 << 20),
            cycle_length=16,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=False,
        )
        .shuffle(64)
        .batch(BATCH)
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def with_patch_sequence(folder: Path) -> Iterable[Any]:
    """Read the raster directly, as `model.fit` does."""
    sequence = PatchSequence(
        xr.open_zarr(folder / "scene.zarr", consolidated=False),
        inputs=INPUTS,
        targets=TARGETS,
        patch_dimensions=PATCH,
        batch_size=BATCH,
    )
    return (sequence[index] for index in range(len(sequence)))


def with_xbatcher(folder: Path) -> Iterable[Any]:
    """Read the raster with xbatcher's Keras loader, which Keras shuffles by its patches."""
    import xbatcher
    from xbatcher.loaders.keras import CustomTFDataset

    ds = xr.open_zarr(folder / "scene.zarr", consolidated=False)
    loader = CustomTFDataset(
        *(
            xbatcher.BatchGenerator(
                ds[names].to_dataarray("band").transpose("y", "x", "band"),
                {"y": PATCH, "x": PATCH, "band": len(names)},
            )
            for names in (INPUTS, TARGETS)
        ),
        transform=lambda patch: patch[None],
        target_transform=lambda patch: patch[None],
    )
    for index in np.random.default_rng(0).permutation(len(loader)):
        yield loader[int(index)]


def with_xbatcher_blocks(folder: Path) -> Iterable[Any]:
    """Read whole chunks with the same loader, in order, and cut them: each chunk is loaded once."""
    import tensorflow as tf
    import xbatcher
    from xbatcher.loaders.keras import CustomTFDataset

    ds = xr.open_zarr(folder / "scene.zarr", consolidated=False)
    per_side = round(BATCH**0.5)
    side = per_side * PATCH

    def cut(block: Any) -> Any:
        parts = tf.reshape(block, (per_side, PATCH, per_side, PATCH, -1))
        return tf.reshape(tf.transpose(parts, (0, 2, 1, 3, 4)), (BATCH, PATCH, PATCH, -1))

    generators = [
        xbatcher.BatchGenerator(
            ds[names].to_dataarray("band").transpose("y", "x", "band"),
            {"y": side, "x": side, "band": len(names)},
        )
        for names in (INPUTS, TARGETS)
    ]
    loader = CustomTFDataset(*generators, transform=cut, target_transform=cut)
    for index in range(len(loader)):
        yield loader[index]
