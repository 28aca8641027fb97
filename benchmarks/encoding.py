"""Encoding of arrays: SequenceExamples compared with protobuf objects, integers compared with floats."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Measurement, best_times
from benchmarks.pixels import tiled
from xee_tf.records import Encoded, Feature, RecordLayout, encode_records, iter_frames

BANDS, STEPS = ("blue", "green", "red", "nir"), 12


def run(small: bool) -> Iterator[Measurement]:
    side = 32 if small else 256
    series = pixel_series(side)
    valid = np.random.default_rng(0).random((side * side, STEPS)) < 0.7
    encoded: dict[str, Encoded] = {}

    def encode(name: str, keep_steps: NDArray[np.bool_] | None) -> None:
        masks = None if keep_steps is None else [keep_steps] * len(BANDS)
        layout = RecordLayout((), tuple(Feature.of(band, "f4", 1) for band in BANDS))
        encoded[name] = encode_records(layout, list(series.values()), keep_steps=masks)

    times = best_times(
        {"fixed": lambda: encode("fixed", None), "ragged": lambda: encode("ragged", valid)},
        repeat=2 if small else 7,
    )
    objects: dict[str, list[bytes]] = {}
    # the first call imports TensorFlow
    encode_with_protobuf({name: values[:1] for name, values in series.items()}, None)

    def encode_objects(name: str, keep_steps: NDArray[np.bool_] | None) -> None:
        objects[name] = encode_with_protobuf(series, keep_steps)

    times |= best_times(
        {
            "fixed objects": lambda: encode_objects("fixed", None),
            "ragged objects": lambda: encode_objects("ragged", valid),
        },
        repeat=1 if small else 2,
    )
    for name, steps in (("fixed", "all steps"), ("ragged", "without masked steps (30 %)")):
        check_equal(encoded[name], objects[name])
        yield Measurement(
            f"{side} x {side} pixels of {STEPS} steps x {len(BANDS)} bands as SequenceExamples, {steps}",
            "serialized tf.train.SequenceExample objects, without framing and checksums",
            times[f"{name} objects"] / times[name],
            "times",
            40,
            True,
            f"{times[name] * 1e3:.0f} and {times[f'{name} objects'] * 1e3:.0f} ms",
        )

    yield measure_integers(small)


def measure_integers(small: bool) -> Measurement:
    """Measure rows of int16 features, whose records vary in length, compared with floats."""
    rows, names = 1_000 if small else 100_000, [f"band_{number}" for number in range(10)]
    generator = np.random.default_rng(1)
    values = [generator.integers(0, 10_000, rows).astype(np.int16) for _ in names]

    def make_rows(dtype: str) -> tuple[RecordLayout, list[NDArray[Any]]]:
        layout = RecordLayout(tuple(Feature.of(name, dtype, 1, "band") for name in names))
        return layout, [column.astype(dtype) for column in values]

    times = best_times(
        {dtype: partial(encode_records, *make_rows(dtype)) for dtype in ("float32", "int16")},
        repeat=2 if small else 7,
    )
    return Measurement(
        f"{rows:,} rows of ten int16 features as Examples",
        "the same values as floats",
        times["int16"] / times["float32"],
        "times",
        5,
        False,
        f"{times['int16'] * 1e3:.0f} and {times['float32'] * 1e3:.0f} ms",
    )


def check_equal(encoded: Encoded, expected: list[bytes]) -> None:
    """Compare some records as messages, because protobuf's maps are not ordered."""
    from tensorflow.train import SequenceExample

    records = [bytes(data) for data in iter_frames(encoded.buffer)]
    assert list(map(len, records)) == list(map(len, expected))
    for i in range(0, len(records), 97):
        assert SequenceExample.FromString(records[i]) == SequenceExample.FromString(expected[i])


def pixel_series(side: int) -> dict[str, NDArray[np.float32]]:
    """Return time series of real pixels, an array (pixels, steps) for each band."""
    source = tiled(side * STEPS, side * 2)
    cubes = [band[:, half : half + side] for band in source.values() for half in (0, side)]
    return {
        name: np.ascontiguousarray(cube.reshape(STEPS, -1).T)
        for name, cube in zip(BANDS, cubes, strict=False)
    }


def encode_with_protobuf(
    series: dict[str, NDArray[np.float32]], keep_steps: NDArray[np.bool_] | None
) -> list[bytes]:
    """Encode SequenceExamples as a user would without xee_tf, in the fastest way."""
    import tensorflow as tf

    train = tf.train
    masks = repeat(None) if keep_steps is None else keep_steps
    records = []
    for values, mask in zip(zip(*series.values(), strict=True), masks, strict=False):
        lists = {
            name: train.FeatureList(
                feature=[
                    train.Feature(float_list=train.FloatList(value=(value,)))
                    for value in (steps if mask is None else steps[mask]).tolist()
                ]
            )
            for name, steps in zip(series, values, strict=True)
        }
        record = train.SequenceExample(feature_lists=train.FeatureLists(feature_list=lists))
        records.append(record.SerializeToString())
    return records
