"""Small synthetic rasters, and the content of exports."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

CRS = "EPSG:32633"


def raster(bands, *, y0=5_000_000.0, x0=700_000.0, step=30.0, crs=CRS):
    """Return a north-up Dataset of (y, x) numpy arrays, with the CRS in the attributes as in Xee."""
    height, width = next(iter(bands.values())).shape
    return xr.Dataset(
        {name: (("y", "x"), values) for name, values in bands.items()},
        coords={
            "y": y0 - step * (np.arange(height) + 0.5),
            "x": x0 + step * (np.arange(width) + 0.5),
        },
        attrs={"crs": crs},
    )


def random_band(shape, dtype="float32", seed=0):
    """Return random integers that every numeric dtype can represent."""
    return np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)


def raw_records(result):
    """Read the records of an export as bytes, with TensorFlow."""
    tf = pytest.importorskip("tensorflow")
    paths = [file.path for file in result.files]
    compression = "GZIP" if paths[0].endswith(".gz") else ""
    return list(tf.data.TFRecordDataset(paths, compression_type=compression).as_numpy_iterator())


def without_keys(files):
    """Remove the keys of manifests, which depend on Dask's names of the inputs and thus on their chunks."""
    return {name: re.sub(rb'"key": "\w+"', b"", data) for name, data in sorted(files.items())}


def contents(folder):
    """Return the files of a folder by name, without the keys of manifests."""
    return without_keys({path.name: path.read_bytes() for path in Path(folder).iterdir()})
