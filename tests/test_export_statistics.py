"""Statistics that are taken while an export passes, compared with the pixels of its records."""

import json
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xee_tf
from tests.rasters import contents, raster
from xee_tf.export.tallies import statistics_of_shards
from xee_tf.moments import Moments
from xee_tf.shards import Run, WrittenShard
from xee_tf.sidecars import ShardInfo, manifest_of
from xee_tf.sidecars.packing import render

pytestmark = pytest.mark.usefixtures("small_blocks")
SIDE = 200
CHUNKS = [(200, 200), (64, 64), (37, 200), (200, 11)]
VARIANTS = {
    "aligned": {"patch_dimensions": 32},
    "uncompressed with a kernel": {"patch_dimensions": (50, 30), "kernel_size": 6, "compressed": False},
    "incomplete patches": {"patch_dimensions": 48, "edge": "pad"},
    "omitted patches": {"patch_dimensions": 16, "masked_threshold": 0.3, "max_file_size": 200_000},
    "collapsed": {"patch_dimensions": 32, "collapse_bands": True},
    "integers": {"patch_dimensions": 40, "feature_types": "band", "max_file_size": 300_000},
    "series": {"patch_dimensions": 40, "sequence_data": True, "feature_types": "band"},
    "series without masked steps": {"patch_dimensions": 40, "sequence_data": True, "drop_masked_steps": True},
}


def scene(chunks=(SIDE, SIDE), seed=0):
    rng = np.random.default_rng(seed)
    shape = (SIDE, SIDE)
    bands = {
        "red": rng.normal(3000, 500, shape).astype("float32"),
        "height": rng.normal(1e9, 3, shape),
        "landcover": rng.integers(0, 9, shape).astype("uint8"),
        "count": rng.integers(-30_000, 30_000, shape).astype("int16"),
        "flag": rng.random(shape) < 0.3,
    }
    bands["red"][rng.random(shape) < 0.1] = np.nan
    bands["red"][:70, :90] = np.nan
    image = raster(bands)
    image["landcover"].attrs["nodata"] = 0
    image["ndvi"] = ("time", "y", "x"), rng.normal(0, 1, (3, *shape)).astype("float32")
    image["ndvi"][1, 20:90] = np.nan
    return image.chunk({"y": chunks[0], "x": chunks[1], "time": 2})


def export(image, prefix, **options):
    with warnings.catch_warnings():  # the default value is not in the range of all bands
        warnings.simplefilter("ignore")
        return image.tfexport(prefix, **options)


def manifest(result):
    return manifest_of(json.loads(Path(result.manifest.path).read_text()))


@pytest.mark.parametrize("name", VARIANTS)
def test_statistics_are_those_of_the_records(tmp_path, name):
    image, options = scene(), VARIANTS[name]
    result = export(image, tmp_path / "s", **options)
    found = manifest(result).statistics
    patch = result.grid.patch
    area = image.isel(
        y=slice(0, result.grid.rows * patch.y), x=slice(0, result.grid.patches_per_row * patch.x)
    )
    area = area.load()
    written = manifest(result).patches
    for label, statistics in found.items():
        values = area[label].where(area[label] != 0) if label == "landcover" else area[label]
        values = values.astype("f4" if label == "height" else "f8")
        values = np.atleast_3d(values.transpose("y", "x", ...).values)
        padded = [(0, -values.shape[0] % patch.y), (0, -values.shape[1] % patch.x), (0, 0)]
        values = np.pad(values, padded, constant_values=np.nan)
        rows, columns = result.grid.rows, result.grid.patches_per_row
        patches = values.reshape(rows, patch.y, columns, patch.x, -1).swapaxes(1, 2)
        patches = patches.reshape(rows * columns, -1)
        if written is not None:
            patches = patches[written]
        valid = patches[~np.isnan(patches)].astype("f8")
        assert (statistics.count, statistics.masked) == (valid.size, patches.size - valid.size)
        assert (statistics.min, statistics.max) == (valid.min(), valid.max())
        assert statistics.mean == pytest.approx(valid.mean(), rel=1e-14)
        assert statistics.std == pytest.approx(valid.std(), rel=1e-11)
        if label in ("landcover", "flag"):
            labels, counts = np.unique(valid, return_counts=True)
            assert statistics.classes == dict(zip(labels.astype(int), counts, strict=True))
        else:
            assert statistics.classes is None
    table = result.statistics
    assert table["band"].values.tolist() == list(found)
    assert table["mean"].values.tolist() == [each.mean for each in found.values()]


@pytest.mark.parametrize("name", VARIANTS)
def test_bytes_do_not_depend_on_chunks_or_scheduler(tmp_path, name):
    files = []
    for chunks, scheduler in zip(CHUNKS, ["sync", "threads", "threads", "sync"], strict=True):
        folder = tmp_path / f"{chunks[0]}-{chunks[1]}"
        folder.mkdir()
        with dask.config.set(scheduler=scheduler):
            export(scene(chunks), folder / "s", **VARIANTS[name])
        files.append(contents(folder))
    assert files[0] == files[1] == files[2] == files[3]
    assert b'"statistics"' in files[0]["s-image.tfexport"]


def test_the_same_as_band_statistics(tmp_path):
    image = scene()[["red", "landcover", "count", "flag"]]
    result = export(image, tmp_path / "s", patch_dimensions=40, feature_types="band")
    xr.testing.assert_allclose(result.statistics, xee_tf.band_statistics(image), rtol=1e-14)


def test_masks_count(tmp_path):
    image = scene()[["count", "flag"]]
    mask = xr.DataArray(da.from_array(np.arange(SIDE) < 30, chunks=17), dims="x").expand_dims(y=SIDE)
    mask = mask.assign_coords(image.coords).transpose("y", "x")
    found = export(image, tmp_path / "s", patch_dimensions=20, mask=mask).statistics
    assert found["masked"].values.tolist() == [30 * SIDE] * 2
    assert found["mean"].values.tolist() == [
        pytest.approx(float(image[name][:, 30:].mean().compute())) for name in ("count", "flag")
    ]


def test_exports_that_are_masked_everywhere(tmp_path):
    image = raster({"a": np.full((32, 32), np.nan, "f4"), "b": np.ones((32, 32), "i2")})
    image["b"].attrs["nodata"] = 1
    result = image.tfexport(tmp_path / "s", patch_dimensions=16)
    assert result.statistics["masked"].values.tolist() == [1024, 1024]
    assert result.statistics["mean"].isnull().all()
    assert "class" not in result.statistics.dims
    omitted = image.tfexport(tmp_path / "t", patch_dimensions=16, masked_threshold=0)
    assert omitted.statistics["masked"].values.tolist() == [0, 0]
    assert manifest(omitted).statistics["a"].count == 0


def test_bands_that_become_one(tmp_path):
    """If masked steps of collapsed bands are omitted, the records do not tell the bands apart."""
    image = scene()[["landcover", "ndvi"]].isel(y=slice(0, 80), x=slice(0, 80))
    options = {"sequence_data": True, "collapse_bands": True, "drop_masked_steps": True}
    [found] = manifest(export(image, tmp_path / "s", patch_dimensions=40, **options)).statistics.values()
    area = image.load()
    valid = [area["landcover"].values[area["landcover"].values > 0], area["ndvi"].values.ravel()]
    values = np.concatenate(valid).astype("f8")
    values = values[~np.isnan(values)]
    assert (found.count, found.classes) == (values.size, None)
    assert (found.min, found.max) == (values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(), rel=1e-13)


def test_text(tmp_path):
    band = np.arange(1024, dtype="f4").reshape(32, 32)
    band[0, :2] = np.nan
    result = raster({"a": band, "flag": band > 7}).tfexport(tmp_path / "s", patch_dimensions=16)
    for text in (repr(result), repr(xee_tf.inspect(result))):
        assert "  a     2 to 1023, mean 512.5, std 295.026, 2 masked\n" in text
        assert "  flag  0 to 1, mean 0.992188, std" in text


def test_shards_of_older_versions():
    """An export that takes up shards whose statistics are not known has none."""
    shard = WrittenShard.of_runs(
        0, ShardInfo("s", 1, 10, 0), [Run(0, (1,), (10,), (0,), moments=(Moments(4, 0, 1, 2),))]
    )
    document = json.loads(json.dumps(shard.to_json()))
    assert WrittenShard.from_json(document).moments == shard.moments
    del document["moments"]
    older = WrittenShard.from_json(document)
    assert statistics_of_shards(["a"], [shard]) is not None
    assert statistics_of_shards(["a"], [shard, older]) is None


def test_manifests_without_statistics(tmp_path):
    result = raster({"a": np.ones((32, 32), "f4")}).tfexport(tmp_path / "s", patch_dimensions=16)
    path = Path(result.manifest.path)
    document = json.loads(path.read_text())
    for band in document["bands"]:
        del band["statistics"]
    del document["crc32c"]
    path.write_text(render(document))
    assert manifest(result).statistics is None
    assert xee_tf.open_image(result).sizes == {"y": 32, "x": 32}
    document["bands"][0]["statistics"] = {"count": -1}
    path.write_text(render(document))
    with pytest.raises(xee_tf.ManifestError, match="count of the statistics of a band"):
        xee_tf.open_image(result)


@pytest.mark.parametrize("compressed", [True, False])
def test_export_without_statistics(tmp_path, compressed):
    image = scene((64, 64))
    options = {"patch_dimensions": 32, "kernel_size": 4, "compressed": compressed}
    taken = export(image, tmp_path / "a" / "s", **options)
    result = export(image, tmp_path / "b" / "s", statistics=False, **options)
    assert result.statistics is None
    assert manifest(result).statistics is None
    assert taken.statistics is not None
    found, expected = contents(tmp_path / "b"), contents(tmp_path / "a")
    del found["s-image.tfexport"], expected["s-image.tfexport"]
    assert found == expected
