"""Tests of image exports: all values, for any chunks, read with TensorFlow's protobuf classes."""

import gzip
import json
import os
import struct
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.task_spec import DataNode
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.conftest import every_bucket
from tests.optional import optional
from tests.oracle import cut_patches
from tests.rasters import contents, random_band, raster, raw_records, without_keys
from tests.strategies import chunkings, examples, sizes

gpd = optional("geopandas")
tf = optional("tensorflow")

DTYPES = ["uint8", "int8", "int16", "uint16", "float32", "float64", "bool"]

pytestmark = pytest.mark.usefixtures("small_blocks")


def records(result):
    """Parse all records of an export with protobuf."""
    return [tf.train.Example.FromString(data) for data in raw_records(result)]


def values(example, name, shape, dtype):
    """Return one band of a parsed record."""
    feature = example.features.feature[name]
    kind = feature.WhichOneof("kind")
    if kind == "bytes_list":
        (blob,) = feature.bytes_list.value
        return np.frombuffer(blob, np.uint8).reshape(shape)
    return np.array(getattr(feature, kind).value).astype(dtype).reshape(shape)


@st.composite
def exports(draw):
    shape = draw(sizes(2, 30))
    edge = draw(st.sampled_from(["drop", "pad"]))
    patch = (draw(st.integers(1, min(12, shape.x))), draw(st.integers(1, min(12, shape.y))))
    kernel = (draw(st.integers(1, min(9, shape.x))), draw(st.integers(1, min(9, shape.y))))
    bands = {}
    for number in range(draw(st.integers(1, 3))):
        dtype = draw(st.sampled_from(DTYPES))
        bands[f"B{number}"] = (dtype, draw(chunkings(shape.y)), draw(chunkings(shape.x)))
    options = {
        "patch_dimensions": patch,
        "kernel_size": kernel,
        "edge": edge,
        "compressed": draw(st.booleans()),
        "max_file_size": draw(st.sampled_from([1500, 5000, 2**30])),
        "default_value": draw(st.sampled_from([0, -7.9, 300])),
        "feature_types": draw(st.sampled_from(["float", "band"])),
        "masked_threshold": draw(st.sampled_from([1.0, 1.0, 0.5, 0.0])),
        "index": draw(st.booleans()),
    }
    return shape, bands, options, draw(st.booleans()), draw(st.booleans()), draw(st.integers(0, 9))


@pytest.mark.filterwarnings("ignore:default_value")  # tested in test_masks.py
@examples(60)
@given(exports())
def test_export_writes_all_values(tmp_path_factory, case):
    shape, bands, options, with_mask, transposed, seed = case
    rng = np.random.default_rng(seed)
    arrays, absent, dataset = {}, {}, {}
    for number, (name, (dtype, chunks_y, chunks_x)) in enumerate(bands.items()):
        array = random_band(shape.shape, dtype, seed + number)
        absent[name] = np.zeros(shape.shape, bool)
        attrs = {}
        if dtype.startswith("f"):
            absent[name] = rng.random(shape.shape) < 0.2
            array[absent[name]] = np.nan
        elif dtype != "bool":
            attrs["_FillValue"] = 5
            absent[name] = array == 5
        arrays[name] = array
        dims, lazy = ("y", "x"), da.from_array(array, chunks=(chunks_y, chunks_x))
        if transposed:
            dims, lazy = dims[::-1], lazy.T
        dataset[name] = (dims, lazy, attrs)
    ds = raster({"template": np.zeros(shape.shape)}).drop_vars("template").assign(dataset)
    if with_mask:
        mask = rng.random(shape.shape) < 0.1
        options = {**options, "mask": xr.DataArray(mask, dims=("y", "x"), coords={"y": ds.y, "x": ds.x})}
        absent = {name: band | mask for name, band in absent.items()}

    folder = tmp_path_factory.mktemp("export")
    with dask.config.set(scheduler="sync"):
        result = ds.tfexport(folder / "scene", **options)

    found = records(result)
    cut = {"patch": options["patch_dimensions"], "kernel": options["kernel_size"], "edge": options["edge"]}
    _, share = cut_patches(
        np.zeros(shape.shape), **cut, default=0, masked=np.logical_or.reduce(list(absent.values()))
    )
    kept = [number for number, masked in enumerate(share) if masked <= options["masked_threshold"]]
    assert len(found) == len(kept) == result.records
    assert result.dropped == len(share) - len(kept)
    for name, (dtype, _, _) in bands.items():
        default = options["default_value"]
        if not dtype.startswith("f"):
            limits = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            default = np.clip(int(default), *limits)
        out = "f4" if dtype.startswith("f") or options["feature_types"] == "float" else "i8"
        patches, _ = cut_patches(
            np.nan_to_num(arrays[name].astype("f8")), **cut, default=default, masked=absent[name]
        )
        for position, number in enumerate(kept):
            expected = patches[number].astype(out)
            np.testing.assert_array_equal(values(found[position], name, expected.shape, out), expected)
    assert (result.mixer is None) == (options["masked_threshold"] < 1)
    for file in result.files:
        uncompressed = Path(file.path).read_bytes()
        assert len(uncompressed) == file.bytes
        if options["compressed"]:
            uncompressed = gzip.decompress(uncompressed)
        assert len(uncompressed) <= options["max_file_size"] or file.records <= 1
    if options["index"]:
        index = gpd.read_parquet(str(result.index))
        assert index["patch"].tolist() == kept
        np.testing.assert_allclose(index["masked"], [share[number] for number in kept])
        for _, line in index.iterrows():
            corners = result.grid.corners(line["patch"])
            np.testing.assert_allclose(line.geometry.exterior.coords[:-1], corners)
    assert {path.name for path in folder.iterdir()} == (
        {Path(file.path).name for file in result.files}
        | {"scene-image.tfexport"}
        | ({"scene-mixer.json"} if result.mixer else set())
        | ({"scene-index.parquet"} if result.index else set())
    )


# -- Deterministic bytes, chunks loaded once, few tasks ----------------------------------------------


def scene(chunks_y, chunks_x, seed=0, shape=(150, 170)):
    a, b = random_band(shape, "float32", seed), random_band(shape, "uint8", seed + 1)
    ds = raster({"a": a, "b": b})
    return ds.chunk(y=chunks_y, x=chunks_x)


OPTIONS = {"patch_dimensions": (16, 8), "kernel_size": (6, 5), "max_file_size": 60_000}


@pytest.fixture
def expected(tmp_path):
    """Return the files of an export of a single chunk, and so of a single block."""
    scene(150, 170).tfexport(tmp_path / "expected" / "scene", **OPTIONS)
    return contents(tmp_path / "expected")


@pytest.mark.parametrize(
    "chunks", [(150, 170), (1, 170), (7, 11), (64, 64), (150, 1), ((100, 3, 47), (9, 161))]
)
def test_bytes_do_not_depend_on_chunks(tmp_path, expected, chunks):
    scene(*chunks).tfexport(tmp_path / "here" / "scene", **OPTIONS)
    assert contents(tmp_path / "here") == expected


def test_bytes_do_not_depend_on_scheduler(tmp_path, expected):
    from distributed import Client, LocalCluster

    ds = scene(40, 40)
    for scheduler in ("sync", "threads", "processes"):
        with dask.config.set(scheduler=scheduler):
            ds.tfexport(tmp_path / scheduler / "scene", **OPTIONS)
        assert contents(tmp_path / scheduler) == expected
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        ds.tfexport(tmp_path / "cluster" / "scene", **OPTIONS)
    assert contents(tmp_path / "cluster") == expected


def test_killed_worker(tmp_path, expected):
    import distributed
    from distributed import Client, LocalCluster

    marker = tmp_path / "killed"

    def kill_once(block):
        if not marker.exists() and distributed.get_worker().name == 1:
            marker.touch()
            os._exit(1)
        until = time.monotonic() + 10
        while not marker.exists() and time.monotonic() < until:  # wait until the other worker has a block
            time.sleep(0.01)
        return block

    ds = scene(40, 40)
    ds["a"] = ds["a"].copy(data=ds["a"].data.map_blocks(kill_once, meta=np.empty((0, 0), "f4")))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
        dask.config.set({"distributed.logging.distributed": "critical"}),
    ):
        ds.tfexport(tmp_path / "here" / "scene", **OPTIONS)
    assert marker.exists()
    assert contents(tmp_path / "here") == expected


class Counting:
    """An array that records which chunks are read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim
        self.loads = []

    def __getitem__(self, key):
        self.loads.append(tuple((part.start, part.stop) for part in key))
        return self.values[key]


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("kernel", [1, 9])
@pytest.mark.parametrize("chunks", [(50, 60), (300, 60), (50, 420), (100, 140)])
def test_chunks_are_loaded_once_with_few_tasks(tmp_path, chunks, kernel, bands):
    shape = (300, 420)
    sources = {f"B{number}": Counting(random_band(shape)) for number in range(bands)}
    ds = raster({"a": np.zeros(shape)}).drop_vars("a")
    for name, source in sources.items():
        ds[name] = (
            ("y", "x"),
            da.from_array(source, chunks=chunks, name=name, meta=np.empty((0, 0), "f4")) + 1,
        )
    options = {"patch_dimensions": (16, 16), "kernel_size": kernel, "max_file_size": 200_000}
    number_of_chunks = bands * (300 // chunks[0]) * (420 // chunks[1])
    plan = ds.tfexport.plan(tmp_path / "scene", **options)
    delayed = ds.tfexport(tmp_path / "scene", compute=False, **options)
    (optimized,) = dask.optimize(delayed)
    tasks = sum(not isinstance(node, DataNode) for node in optimized.__dask_graph__().values())
    assert plan.tasks == tasks
    axis = plan.block_layout.y
    rows = sum(len(axis.owned(row)) > 0 for row in range(len(axis)))
    assert plan.tasks <= 5 * number_of_chunks + 2 * rows + 2 * plan.shards
    assert not any(source.loads for source in sources.values())
    delayed.compute()
    for source in sources.values():
        assert len(source.loads) == len(set(source.loads)) == number_of_chunks / bands


def test_chunk_with_several_bands_is_loaded_once(tmp_path):
    loads = []

    def load(block, block_info=None):
        loads.append(tuple(block_info[0]["chunk-location"]))
        return block

    cube = da.from_array(random_band((3, 64, 64)), chunks=(3, 32, 32)).map_blocks(
        load, meta=np.empty((0, 0, 0), "f4")
    )
    image = xr.DataArray(
        cube,
        dims=("band", "y", "x"),
        coords={"band": ["r", "g", "b"], "y": -np.arange(64.0), "x": np.arange(64.0)},
    ).rio.write_crs(32633)
    result = image.tfexport(tmp_path / "rgb", patch_dimensions=16, kernel_size=4)
    assert len(loads) == len(set(loads)) == 4
    example = records(result)[5]
    np.testing.assert_array_equal(values(example, "g", (20, 20), "f4"), cube[1].compute()[14:34, 14:34])


def test_max_file_size_is_before_compression(tmp_path):
    """In an Earth Engine export, 3 byte bands of 1024 x 1024 and 100 MiB gave 33 records per file."""
    ds = raster({f"B{n}": np.zeros((1024, 1024), "uint8") for n in (2, 3, 4)})
    plan = ds.tfexport.plan(
        patch_dimensions=1024, feature_types="band", max_file_size=104_857_600, compressed=False
    )
    assert plan.records_per_shard == 33


# -- Regions, plans, stores and failures ----------------------------------------------------------


def test_margins_of_region_have_surrounding_pixels(tmp_path):
    array = random_band((100, 120))
    ds = raster({"a": array})
    result = ds.chunk(y=30, x=30).tfexport(
        tmp_path / "part", patch_dimensions=(20, 10), kernel_size=6, region=(slice(30, 65), slice(40, 90))
    )
    patches, _ = cut_patches(array, patch=(20, 10), kernel=(6, 6), default=0, region=(30, 65, 40, 90))
    found = records(result)
    assert len(found) == len(patches) == 6
    for example, patch in zip(found, patches, strict=True):
        np.testing.assert_array_equal(values(example, "a", patch.shape, "f4"), patch)
    mixer = json.loads(Path(str(result.mixer)).read_text())
    assert mixer["projection"]["affine"]["doubleMatrix"] == [30, 0, 700_000 + 40 * 30, 0, -30, 5e6 - 30 * 30]
    assert (mixer["patchesPerRow"], mixer["totalPatches"]) == (2, 6)


def test_plan_and_compute_false_write_nothing(tmp_path):
    ds = scene(40, 40)
    delayed = ds.tfexport(tmp_path / "out" / "scene", compute=False, **OPTIONS)
    plan = ds.tfexport.plan(tmp_path / "out" / "scene", **OPTIONS)
    assert list(tmp_path.iterdir()) == []
    result = delayed.compute()
    assert len(result.files) == plan.shards
    assert result.records == plan.records
    again = contents(tmp_path / "out")
    with pytest.raises(xee_tf.DestinationExistsError, match="if_exists='overwrite'"):
        delayed.compute()
    assert contents(tmp_path / "out") == again


def test_failed_export_leaves_no_files(tmp_path):
    def fail(block, block_info=None):
        if block_info[0]["chunk-location"] == (2, 2):
            raise OSError("the disk is gone")
        return block

    good = scene(40, 40)
    good.tfexport(tmp_path / "scene", **OPTIONS)
    before = contents(tmp_path)
    bad = good.copy()
    bad["a"] = bad["a"].copy(data=bad["a"].data.map_blocks(fail, meta=np.empty((0, 0), "f4")))
    with pytest.raises(OSError, match="the disk is gone"):
        bad.tfexport(tmp_path / "scene", if_exists="overwrite", **OPTIONS)
    assert contents(tmp_path) == before


def test_overwrite_removes_old_export(tmp_path):
    pytest.importorskip("geopandas")
    ds = scene(40, 40)
    ds.tfexport(tmp_path / "scene", index=True, **OPTIONS)
    ds.tfexport(tmp_path / "scene_2", **OPTIONS)
    with pytest.raises(
        xee_tf.DestinationExistsError, match=r"scene-.* already exists .*if_exists='overwrite'"
    ):
        ds.tfexport(tmp_path / "scene", **OPTIONS)
    result = ds.tfexport(tmp_path / "scene", **{**OPTIONS, "max_file_size": 2**30}, if_exists="overwrite")
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("scene_2")}
    assert names == {"scene-00000.tfrecord.gz", "scene-mixer.json", "scene-image.tfexport"}
    assert result.files[0].records == result.records


def test_export_to_memory(expected):
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.rm("/bucket", recursive=True) if fs.exists("/bucket") else None
    with dask.config.set(scheduler="threads"):
        result = scene(40, 40).tfexport("memory://bucket/run/scene", **OPTIONS)
    found = {path.rsplit("/", 1)[-1]: fs.cat(path) for path in fs.find("/bucket")}
    assert without_keys(found) == expected
    assert str(result.mixer) == "memory://bucket/run/scene-mixer.json"


@every_bucket
def test_export_to_buckets(expected, bucket):
    """With local servers: uploads in parts, storage options in tasks."""
    url, options = f"{bucket.url}/run/scene", bucket.options
    with dask.config.set(scheduler="threads"):
        result = scene(40, 40).tfexport(url, storage_options=options, **OPTIONS)
    found = {key.rsplit("/", 1)[-1]: data for key, data in bucket.read().items()}
    assert without_keys(found) == expected
    assert "secret" not in repr(result)
    with pytest.raises(xee_tf.DestinationExistsError):
        scene(40, 40).tfexport(url, storage_options=options, **OPTIONS)


def test_checksums_of_files(tmp_path):
    google_crc32c = pytest.importorskip("google_crc32c")

    result = scene(64, 64).tfexport(tmp_path / "scene", **OPTIONS)
    for file in result.files:
        data = Path(file.path).read_bytes()
        assert (file.bytes, file.crc32c) == (len(data), google_crc32c.value(data))


def test_export_without_records(tmp_path):
    ds = raster({"a": np.full((32, 32), np.nan, "f4")})
    result = ds.tfexport(tmp_path / "empty", patch_dimensions=16, masked_threshold=0.5)
    assert result.records == 0
    assert result.dropped == 4
    assert records(result) == []
    assert gzip.decompress(Path(result.files[0].path).read_bytes()) == b""


# -- Forms of rasters -----------------------------------------------------------------------------


def test_dataset_from_xee(tmp_path):
    """With the CRS in attrs["crs"], a time dimension of length 1, and dimensions (time, lon, lat)."""
    array = random_band((40, 60))
    ds = xr.Dataset(
        {"ndvi": (("time", "lon", "lat"), array.T[None])},
        coords={
            "time": [np.datetime64("2024-05-01", "ns")],
            "lon": 10 + 0.05 * (np.arange(60) + 0.5),
            "lat": 50 - 0.05 * (np.arange(40) + 0.5),
        },
        attrs={"crs": "EPSG:4326"},
    )
    result = ds.chunk(lon=25).tfexport(tmp_path / "scene", patch_dimensions=(30, 20))
    patches, _ = cut_patches(array, patch=(30, 20), kernel=(1, 1), default=0)
    for example, patch in zip(records(result), patches, strict=True):
        np.testing.assert_array_equal(values(example, "ndvi", patch.shape, "f4"), patch)
    assert result.grid.crs == "EPSG:4326"
    assert tuple(result.grid.affine)[:6] == pytest.approx((0.05, 0, 10, 0, -0.05, 50))


def test_several_images_on_same_grid(tmp_path):
    image, labels = raster({"a": random_band((40, 40))}), raster({"class": random_band((40, 40), "uint8")})
    result = xee_tf.export_image([image, labels], tmp_path / "both", patch_dimensions=20)
    assert set(records(result)[0].features.feature) == {"a", "class"}
    shifted = raster({"class": random_band((40, 40), "uint8")}, x0=700_015.0)
    with pytest.raises(xee_tf.GridMismatchError, match=r"0\.5 pixel"):
        xee_tf.export_image([image, shifted], tmp_path / "shifted", patch_dimensions=20)
    assert not (tmp_path / "shifted-mixer.json").exists()


def test_mask_as_variable(tmp_path):
    ds = raster({"a": random_band((20, 20))})
    ds["cloud"] = ds["a"] > 60
    result = ds.tfexport(tmp_path / "masked", patch_dimensions=20, default_value=-1, mask="cloud")
    (example,) = records(result)
    assert list(example.features.feature) == ["a"]
    expected = np.where(ds["a"] > 60, -1, ds["a"])
    np.testing.assert_array_equal(values(example, "a", (20, 20), "f4"), expected)


# -- Options in Earth Engine's spelling ------------------------------------------------------------

PASTED = {
    "patchDimensions": [16, 8],
    "kernelSize": [6, 5],
    "compressed": True,
    "maxFileSize": 60_000,
    "defaultValue": 0,
    "maskedThreshold": 1,
}


def test_earth_engine_options_give_same_bytes(tmp_path, expected):
    ds = scene(64, 64)
    ds.tfexport(tmp_path / "pasted" / "scene", format_options=PASTED)
    flat = {f"tfrecord{key[0].upper()}{key[1:]}": value for key, value in PASTED.items()}
    ds.tfexport(tmp_path / "flat" / "scene", **flat)
    assert contents(tmp_path / "pasted") == contents(tmp_path / "flat") == expected


def earth_engine_request(format_options, **flat):
    """Return the request of the earthengine-api client for the same options."""
    pytest.importorskip("ee")
    from ee import batch

    config = {"fileFormat": "TFRecord", "formatOptions": dict(format_options), "description": "x", **flat}
    batch._canonicalize_parameters(config, batch.Task.ExportDestination.DRIVE)
    return batch._build_image_file_export_options(config, batch.Task.ExportDestination.DRIVE)


@pytest.mark.parametrize(
    ("format_options", "flat"),
    [
        ({"patchDimension": [16, 16]}, {}),
        ({"patchDimensions": [16, 16], "kernel": 3}, {}),
        ({"patchDimensions": [16, 16]}, {"tfrecordPatchDimensions": [8, 8]}),
    ],
)
def test_errors_of_earth_engine_client(tmp_path, format_options, flat):
    ee = pytest.importorskip("ee")

    with pytest.raises(ee.EEException) as expected:
        earth_engine_request(format_options, **flat)
    with pytest.raises(xee_tf.OptionError) as raised:
        scene(64, 64).tfexport(tmp_path / "scene", format_options=format_options, **flat)
    assert str(raised.value).split(":")[0].split(".")[0] == str(expected.value).split(":")[0].split(".")[0]


def test_options_of_earth_engine_client():
    request = earth_engine_request(PASTED)["tfRecordOptions"]
    plan = scene(64, 64).tfexport.plan(format_options=PASTED)
    assert request["tileDimensions"] == {"width": plan.grid.patch.x, "height": plan.grid.patch.y}
    assert request["marginDimensions"] == {
        "width": plan.options.kernel_size.x,
        "height": plan.options.kernel_size.y,
    }
    assert request["maxSizeBytes"]["value"] == str(plan.options.max_file_size)
    assert request["compress"] is plan.options.compressed
    assert request["maxMaskedRatio"]["value"] == plan.masked_threshold
    square = scene(64, 64).tfexport.plan(format_options={"patchDimensions": 32})
    both = earth_engine_request({"patchDimensions": 32})["tfRecordOptions"]["tileDimensions"]
    assert (both["width"], both["height"]) == square.grid.patch.xy


# -- Invalid input -----------------------------------------------------------------------------------


def _no_crs():
    ds = scene(64, 64)
    ds.attrs.clear()
    return ds


def _irregular():
    ds = scene(64, 64)
    return ds.assign_coords(x=ds.x.values**1.01)


def series():
    return scene(64, 64).expand_dims(time=3)


INVALID = [
    ({}, _no_crs, xee_tf.GeoreferenceError, "write_crs"),
    ({}, _irregular, xee_tf.GeoreferenceError, "regular|evenly"),
    ({}, lambda: scene(64, 64).rename(x="p", y="q"), xee_tf.GeoreferenceError, "set_spatial_dims"),
    ({"patch_dimensions": 0}, None, xee_tf.OptionError, r"patch_dimensions must be at least 1 .*\(0, 0\)"),
    ({"patch_dimensions": 200}, None, xee_tf.OptionError, "patch of 200 pixels does not fit.*edge='pad'"),
    ({"kernel_size": -3}, None, xee_tf.OptionError, r"kernel_size must be at least 1.*\(-3, -3\)"),
    ({"kernel_size": 171}, None, xee_tf.OptionError, "kernel of 171 pixels is larger than the raster: 170"),
    ({"masked_threshold": 1.2}, None, xee_tf.OptionError, "from 0 to 1; got 1.2"),
    ({"masked_threshold": "half"}, None, xee_tf.OptionError, "from 0 to 1; got 'half'"),
    ({"max_file_size": 0}, None, xee_tf.OptionError, "whole number of at least 1; got 0"),
    ({"default_value": float("nan")}, None, xee_tf.OptionError, "finite number, such as -9999; got nan"),
    ({"feature_types": "int"}, None, xee_tf.OptionError, "'float' or 'band'; got 'int'"),
    ({"edge": "wrap"}, None, xee_tf.OptionError, "'drop' or 'pad'; got 'wrap'"),
    ({"if_exists": "append"}, None, xee_tf.OptionError, "'error', 'overwrite' or 'resume'; got 'append'"),
    (
        {"patch_size": 16},
        None,
        xee_tf.OptionError,
        "Unknown export options: {'patch_size': 16}. Available options: patch_dim",
    ),
    (
        {"kernel_size": 3, "format_options": {"kernelSize": 5}},
        None,
        xee_tf.OptionError,
        "Both 'kernel_size' and",
    ),
    ({"mask": "cloud"}, None, xee_tf.OptionError, r"not a variable of the image; available: 'a', 'b'"),
    ({"region": (0, 0, 1, 1)}, None, xee_tf.OptionError, "outside"),
    ({}, lambda: scene(64, 64).astype("complex64"), xee_tf.OptionError, "'a' has dtype complex64"),
    ({}, lambda: scene(64, 64).astype("datetime64[ns]"), xee_tf.OptionError, "'a' has dtype datetime64"),
    ({"tensor_depths": {"a": 2}}, None, xee_tf.OptionError, "'a', which is a scalar band"),
    (
        {"tensor_depths": {"c": 2}},
        None,
        xee_tf.OptionError,
        r"'c', which is not a band.*all bands: 'a', 'b'",
    ),
    ({"tensor_depths": {"a": 2}}, series, xee_tf.OptionError, "no depth for the array band 'b', which has 3"),
    (
        {"tensor_depths": {"a": 2, "b": 0}},
        series,
        xee_tf.OptionError,
        "'b'. must be .*; got 0",
    ),
    ({"tensor_depths": {"a": 2, "b": True}}, series, xee_tf.OptionError, "'b'. .* got True"),
    ({"tensor_depths": {"a": 2, "b": 1.5}}, series, xee_tf.OptionError, r"'b'. .* got 1\.5"),
    ({"tensor_depths": [2, 2, 2]}, series, xee_tf.OptionError, r"for each of the array bands 'a', 'b'"),
    ({"tensor_depths": 2}, series, xee_tf.OptionError, "tensor_depths must be a mapping"),
    ({"sequence_data": True, "kernel_size": 3}, series, xee_tf.OptionError, "no margins: omit kernel_size"),
    ({"drop_masked_steps": True}, series, xee_tf.OptionError, "requires sequence_data=True"),
    ({}, lambda: scene(64, 64).rename(a=""), xee_tf.OptionError, "name"),
    ({}, lambda: scene(64, 64).rename(a=7), xee_tf.OptionError, "name"),
    ({}, lambda: scene(64, 64)[[]], xee_tf.OptionError, "no bands"),
    (
        {"crs": "EPSG:9"},
        None,
        xee_tf.GeoreferenceError,
        r"^crs='EPSG:9' is not .* pyproj accepts \(.*crs='EPSG:32633'\.$",
    ),
    (
        {"region": (slice(0, 20), slice(3, 15))},
        None,
        xee_tf.OptionError,
        "16 pixels .*: the region is only 12 wide",
    ),
    ({"region": {"type": "Curve"}}, None, xee_tf.OptionError, "The Curve in region cannot"),
    ({"region": scene(64, 64)}, None, xee_tf.OptionError, "got <xarray.Dataset> Size"),
    ({"kernel_size": "wide"}, None, xee_tf.OptionError, r"for example \(32, 32\); got 'wide'"),
    ({"patch_dimensions": "16x16"}, None, xee_tf.OptionError, r"for example \(256, 256\); got '16x16'"),
    ({"tensor_depths": 7}, None, xee_tf.OptionError, "such as .*, or a sequence .*; got 7"),
    ({"tensor_depths": "abc"}, None, xee_tf.OptionError, "or a sequence .*; got 'abc'"),
    ({"tensor_depths": [2, 3]}, None, xee_tf.OptionError, "the image has no array bands"),
    ({"bands": ["a"]}, None, xee_tf.OptionError, "- bands: select the bands"),
    (
        {"maxFileSize": 9, "formatOptions": {"maxFileSize": 8}},
        None,
        xee_tf.OptionError,
        "'maxFileSize' is given twice: by keyword and in format_options",
    ),
    ({}, lambda: scene(64, 64).isel(y=3), xee_tf.GeoreferenceError, "two spatial dimensions; .*'x',"),
    ({}, lambda: scene(64, 64).astype(str), xee_tf.OptionError, "Replace its strings"),
    (
        {"mask": scene(64, 64).b.isel(y=slice(2, None)) > 3},
        None,
        xee_tf.GridMismatchError,
        r"their 'y' coordinates differ; the mask has the shape \[148, 170\], the image \[150, 170\]",
    ),
]


@pytest.mark.parametrize(("options", "image", "error", "message"), INVALID)
def test_invalid_input_writes_nothing(tmp_path, options, image, error, message):
    ds = (image or (lambda: scene(64, 64)))()
    with pytest.raises(error, match=message):
        ds.tfexport(tmp_path / "scene", **{"patch_dimensions": 16, **options})
    assert list(tmp_path.iterdir()) == []


def test_images_on_other_grids_are_numbered(tmp_path):
    images = [scene(64, 64), scene(64, 64).rename(a="c", b="d"), scene(64, 64, shape=(150, 90))]
    with pytest.raises(xee_tf.GridMismatchError, match=r"^images\[0\] and images\[2\] are not"):
        xee_tf.export_image(images, tmp_path / "scene")


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (None, "got NoneType"),
        (5, "got int"),
        ("scene.tif", r"got str\. Open the file first"),
        ([None], "got list with an item of type NoneType"),
        ({"a": 1}, "got dict with an item of type str"),
    ],
)
def test_image_of_wrong_type(tmp_path, image, found):
    for call in (
        lambda: xee_tf.export_image(image, tmp_path / "scene"),
        lambda: xee_tf.plan_export(image),
        lambda: xee_tf.sample_table(image, None, tmp_path / "scene"),
    ):
        with pytest.raises(xee_tf.OptionError, match=f"image must be a Dataset, a DataArray or .*{found}"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_duplicate_band_name():
    image = xr.DataArray(
        np.zeros((2, 8, 8)),
        dims=("band", "y", "x"),
        coords={"band": ["a", "a"], "y": -np.arange(8.0), "x": np.arange(8.0)},
    ).rio.write_crs(32633)
    with pytest.raises(xee_tf.OptionError, match="'a'"):
        image.tfexport.plan(patch_dimensions=4)


def test_warning_for_integers_beyond_float32():
    ds = raster({"id": np.zeros((32, 32), "int32")})
    with pytest.warns(UserWarning, match="'id' is int32 .* 16,777,216"):
        ds.tfexport.plan(patch_dimensions=16)
    ds.tfexport.plan(patch_dimensions=16, feature_types="band")


def test_unwritable_destination(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(xee_tf.DestinationError, match="is a file, not a folder"):
        scene(64, 64).tfexport(tmp_path / "file" / "scene", **OPTIONS)


def test_plan_warns_about_memory():
    huge = da.zeros((200_000, 200_000), chunks=-1, dtype="f4")
    ds = raster({"a": np.zeros((2, 2))}).drop_vars(["a", "x", "y"]).assign(a=(("y", "x"), huge))
    plan = xee_tf.plan_export(ds, transform=(30, 0, 0, 0, -30, 0))
    assert "200000 x 200000" in plan.warnings[0]
    assert "chunks={'y': 1024, 'x': 1024}" in plan.warnings[0]
    assert not scene(64, 64).tfexport.plan(patch_dimensions=16).warnings


def test_record_framing(tmp_path):
    result = scene(64, 64).tfexport(tmp_path / "scene", **{**OPTIONS, "compressed": False})
    data = Path(result.files[0].path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert length + 16 == xee_tf.plan_export(scene(64, 64), **OPTIONS).record_bytes
