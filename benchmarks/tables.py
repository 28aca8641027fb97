"""Export of tables, compared with a loop over rows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import numpy as np
import pandas as pd

from benchmarks.measure import Measurement, best_times
from benchmarks.pixels import tiled
from xee_tf import export_table


def run(small: bool) -> Iterator[Measurement]:
    rows = 10_000 if small else 1_000_000
    sample = rows // 10
    folder = Path(tempfile.mkdtemp())
    numbers = pixel_table(rows)
    strings = numbers.assign(red_2=np.array(["forest", "water", "urban"])[np.arange(rows) % 3])

    def export(table: pd.DataFrame) -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            export_table(table, folder / uuid4().hex)

    export(strings[:10])  # import packages first
    export_with_tensorflow(strings[:10], folder / uuid4().hex)
    times = best_times(
        {"numbers": lambda: export(numbers), "strings": lambda: export(strings)}, repeat=1 if small else 5
    )
    loops = best_times(
        {
            "numbers": lambda: export_with_tensorflow(numbers[:sample], folder / uuid4().hex),
            "strings": lambda: export_with_tensorflow(strings[:sample], folder / uuid4().hex),
        },
        repeat=1 if small else 2,
    )
    shutil.rmtree(folder)
    for name, columns in (("numbers", "10 columns"), ("strings", "10 columns, one with strings")):
        rate, loop_rate = rows / times[name], sample / loops[name]
        yield Measurement(
            f"table export, {rows:,} rows x {columns}, gzip",
            f"tf.train.Example + TFRecordWriter, timed on {sample:,} of the rows",
            rate / loop_rate,
            "times",
            40,
            True,
            f"{rate:,.0f} and {loop_rate:,.0f} rows/s",
        )


def pixel_table(rows: int) -> pd.DataFrame:
    """Return a table of real pixels with ten float32 columns."""
    source = tiled(rows // 500 + 4, 500)
    columns = {
        f"{name}_{shift}": band.reshape(-1)[500 * shift :][:rows]
        for shift in range(4)
        for name, band in source.items()
    }
    return pd.DataFrame(dict(list(columns.items())[:10]))


def export_with_tensorflow(table: pd.DataFrame, path: Path) -> None:
    """Export as a user would without xee_tf, in the fastest way."""
    import tensorflow as tf

    train = tf.train

    def feature(value: Any) -> Any:
        if isinstance(value, str):
            return train.Feature(bytes_list=train.BytesList(value=(value.encode(),)))
        return train.Feature(float_list=train.FloatList(value=(value,)))

    names = list(table)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for row in zip(*(table[name].tolist() for name in names), strict=True):
            features = train.Features(feature=dict(zip(names, map(feature, row), strict=True)))
            writer.write(train.Example(features=features).SerializeToString())
