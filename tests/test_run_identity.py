"""Identities of runs: what is noticed of changed inputs, and what is not a change."""

import os
import shutil
import subprocess
import sys
import time

import dask
import dask.array as da
import distributed
import fsspec
import numpy as np
import pytest
import rioxarray
import xarray as xr
import zarr
import zarr.storage

from tests.conftest import ROOT, every_bucket
from tests.optional import optional
from tests.rasters import random_band, raster
from xee_tf import DestinationExistsError, Model, open_image, sample_table
from xee_tf.identity import Content, run_identity

h5py = optional("h5py")
needs_netcdf = pytest.mark.skipif(not h5py, reason="needs h5netcdf")


def explain(before, after, **identity):
    """Return how the identity of a run with one input differs from an earlier one."""
    stored = run_identity({}, {"B": before}, **identity).to_json()
    return run_identity({}, {"B": after}, **identity).explain_difference(stored)


def flip(path):
    """Change the last byte of a file, but neither its size nor its modification time."""
    before = os.stat(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def image(seed=0):
    return raster({"B": random_band((64, 48), seed=seed)}).rio.write_crs(32633)


# -- Files and stores ---------------------------------------------------------------------------------

ZARR = {
    "xarray": lambda path: xr.open_zarr(path, chunks={}, consolidated=False).B,
    "window": lambda path: xr.open_zarr(path, chunks={"x": 48}, consolidated=False).B[5:20, ::3],
    "list": lambda path: xr.open_zarr(path, chunks={}, consolidated=False).B[[3, 1, 2]],
    "arithmetic": lambda path: xr.open_zarr(path, chunks={}, consolidated=False).B.where(lambda b: b > 9) * 2,
    "coarsened": lambda path: xr.open_zarr(path, chunks={}, consolidated=False).B.coarsen(x=2).mean(),
    "stacked": lambda path: da.stack([da.from_zarr(f"{path}/B")] * 3).mean(0),
    "rechunked": lambda path: da.from_zarr(f"{path}/B").rechunk(13),
    "array": lambda path: da.from_array(zarr.open_array(f"{path}/B"), chunks=16, name=False),
    "optimized": lambda path: dask.optimize(xr.open_zarr(path, chunks={}, consolidated=False).B + 1)[0],
    "path as an argument": lambda path: da.ones(4, chunks=2).map_blocks(len, path=str(path), dtype=float),
}


@pytest.mark.parametrize("kind", ZARR)
def test_changed_chunk_of_a_zarr_is_noticed(kind, tmp_path):
    store = tmp_path / "a.zarr"
    image().chunk(y=32, x=24).to_zarr(store, consolidated=False)
    before = ZARR[kind](store)
    assert explain(before, ZARR[kind](store)) == ""
    # The graph, and Dask's name, are the same.
    stored = run_identity({}, {"B": before}).to_json()
    flip(store / "B" / "c" / "0" / "0")
    assert "the input 'B' is not the same" in run_identity({}, {"B": before}).explain_difference(stored)


def test_changed_chunk_is_noticed_without_dask(tmp_path):
    def read():
        return run_identity({}, {"B": xr.open_zarr(tmp_path / "a.zarr", chunks=None, consolidated=False).B})

    image().to_zarr(tmp_path / "a.zarr", consolidated=False)
    before = read().to_json()
    assert read().explain_difference(before) == ""
    zarr.open_array(tmp_path / "a.zarr" / "B")[3, 5] += 1
    assert "the input 'B' is not the same" in read().explain_difference(before)


def test_other_arrays_of_a_zarr_do_not_matter(tmp_path):
    image().assign(A=image(1).B).chunk(x=24).to_zarr(tmp_path / "a.zarr", consolidated=False)
    band = xr.open_zarr(tmp_path / "a.zarr", consolidated=False).B
    stored = run_identity({}, {"B": band}).to_json()
    flip(tmp_path / "a.zarr" / "A" / "c" / "0" / "0")
    assert run_identity({}, {"B": band}).explain_difference(stored) == ""


@pytest.mark.parametrize("kind", ["memory", "zip", "fsspec"])
def test_other_stores_of_zarr(kind, tmp_path):
    stores = {
        "memory": zarr.storage.MemoryStore(),
        "zip": tmp_path / "a.zip",
        "fsspec": f"memory://{tmp_path.name}.zarr",
    }

    def write(seed):
        if kind == "zip":
            image(seed).to_zarr(tmp_path / f"{seed}.zarr", consolidated=False)
            shutil.make_archive(tmp_path / "a", "zip", tmp_path / f"{seed}.zarr")
        else:
            image(seed).to_zarr(stores[kind], mode="w", consolidated=False)

    def read():
        store = zarr.storage.ZipStore(stores["zip"], mode="r") if kind == "zip" else stores[kind]
        return run_identity({}, {"B": xr.open_zarr(store, chunks={}, consolidated=False).B})

    write(0)
    before = read().to_json()
    assert read().explain_difference(before) == ""
    write(1)
    assert "the input 'B'" in read().explain_difference(before)


@every_bucket
def test_changed_object_in_a_bucket_is_noticed_with_one_request(bucket):
    store, options = f"{bucket.url}/a.zarr", {**bucket.options, "use_listings_cache": False}
    image().chunk(x=12).to_zarr(store, storage_options=options, consolidated=False)
    band = xr.open_zarr(store, storage_options=options, chunks={}, consolidated=False).B
    bucket.proxy.reset()
    before = run_identity({}, {"B": band}).to_json()
    kinds = bucket.proxy.totals().kinds
    assert (kinds["list"], kinds["get"]) == (1, 0)
    assert run_identity({}, {"B": band}).explain_difference(before) == ""
    chunk = bucket.get("a.zarr/B/c/0/2")
    bucket.put("a.zarr/B/c/0/2", chunk[:-1] + bytes([chunk[-1] ^ 1]))
    assert "the input 'B'" in run_identity({}, {"B": band}).explain_difference(before)


VRT = """<VRTDataset rasterXSize="48" rasterYSize="64"><VRTRasterBand dataType="Float32" band="1">
<SimpleSource><SourceFilename relativeToVRT="1">{0}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
</VRTRasterBand></VRTDataset>"""
RASTERS = {
    "file": ({"chunks": 32}, "a.tif", "a.tif"),
    "without a lock": ({"chunks": 32, "lock": False}, "a.tif", "a.tif"),
    "masked": ({"chunks": {"x": 16}, "masked": True}, "a.tif", "a.tif"),
    "mask": ({"chunks": 32}, "a.tif", "a.tif.msk"),
    "overviews": ({"chunks": 32}, "a.tif", "a.tif.ovr"),
    "metadata": ({"chunks": 32}, "a.tif", "a.tif.aux.xml"),
    "source of a VRT": ({"chunks": 32}, "v.vrt", "a.tif"),
    "source of a VRT in a VRT": ({"chunks": 32}, "w.vrt", "a.tif"),
}


@pytest.mark.parametrize("kind", RASTERS)
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_changed_raster_is_noticed(kind, tmp_path):
    options, name, changed = RASTERS[kind]
    image().B.rio.to_raster(tmp_path / "a.tif")
    (tmp_path / "v.vrt").write_text(VRT.format("a.tif"))
    (tmp_path / "w.vrt").write_text(VRT.format("v.vrt"))

    def read():
        return run_identity({}, {"B": rioxarray.open_rasterio(tmp_path / name, **options)})

    before = read().to_json()
    assert read().explain_difference(before) == ""
    if not (tmp_path / changed).exists():
        shutil.copy(tmp_path / "a.tif", tmp_path / changed)
        if changed.endswith(".xml"):
            (tmp_path / changed).write_text("<PAMDataset></PAMDataset>")
    else:
        flip(tmp_path / changed)
    assert "the input 'B' is not the same" in read().explain_difference(before)


def test_changed_raster_on_a_web_server_is_noticed(tmp_path):
    pytest.importorskip("aiohttp")  # which fsspec needs
    image().B.rio.to_raster(tmp_path / "a.tif")
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            url = server.stdout.readline().decode().partition("(")[2].partition(")")[0]
            band = rioxarray.open_rasterio(f"{url}a.tif", chunks=32)
            before = run_identity({}, {"B": band}).to_json()
            assert run_identity({}, {"B": band}).explain_difference(before) == ""
            os.utime(tmp_path / "a.tif", (1e9, 1e9))
            assert "the input 'B' is not the same" in run_identity({}, {"B": band}).explain_difference(before)
        finally:
            server.kill()


@needs_netcdf
@pytest.mark.parametrize("kind", ["path", "several", "fsspec", "h5py"])
def test_changed_netcdf_is_noticed(kind, tmp_path):
    pytest.importorskip("h5netcdf")
    path = tmp_path / "a.nc"
    image().to_netcdf(path, engine="h5netcdf")

    def read():
        if kind == "h5py":
            return da.from_array(h5py.File(path)["B"], chunks=32)
        if kind == "several":
            return xr.open_mfdataset([path], engine="h5netcdf", chunks={}).B
        opened = fsspec.open(f"file://{path}").open() if kind == "fsspec" else path
        return xr.open_dataset(opened, engine="h5netcdf", chunks={"x": 16}).B

    before = run_identity({}, {"B": read()}).to_json()
    assert run_identity({}, {"B": read()}).explain_difference(before) == ""
    os.utime(path)
    assert "the input 'B'" in run_identity({}, {"B": read()}).explain_difference(before)


def test_export_and_prediction_as_inputs(tmp_path):
    def read():
        export = open_image(tmp_path / "e")
        model = Model.from_function(lambda b: b[..., 0], input_tile_size=16, output_bands=["p"])
        image = xr.open_zarr(tmp_path / "a.zarr", decode_coords="all", consolidated=False)
        return run_identity({}, {"export": export.B, "p": model.predict_image(image, merge=False).p})

    image().chunk(x=16, y=16).tfexport(tmp_path / "e", patch_dimensions=16)
    image().chunk(x=16, y=16).to_zarr(tmp_path / "a.zarr", consolidated=False)
    before = read().to_json()
    assert read().explain_difference(before) == ""
    flip(tmp_path / "a.zarr" / "B" / "c" / "0" / "0")
    assert "the input 'p'" in read().explain_difference(before)
    image(1).chunk(x=16, y=16).tfexport(tmp_path / "e", patch_dimensions=16, if_exists="overwrite")
    assert "the input 'export'" in read().explain_difference(before)


# -- Dask arrays ----------------------------------------------------------------------------------------

SAME = {
    "numpy": lambda: image().chunk(x=16).B,
    "numpy without chunks": lambda: image().B,
    "random name": lambda: da.from_array(np.arange(9), chunks=3, name=False),
    "function": lambda: da.ones((8, 8), chunks=4).map_blocks(lambda b: b + 1),
    "positions": lambda: da.ones(8, chunks=4).map_blocks(lambda b, block_info=None: b, dtype=float),
    "overlap": lambda: da.ones((8, 8), chunks=4).map_overlap(lambda b: b + 1, depth=1),
    "seed": lambda: da.random.default_rng(7).normal(2, 3, (8, 8), chunks=4),
    "old seed": lambda: da.random.RandomState(7).random_sample((8, 8), chunks=4),
    "ufunc": lambda: xr.apply_ufunc(
        lambda b, w: b * w,
        image().chunk(x=16).B,
        kwargs={"w": np.arange(48.0)},
        dask="parallelized",
        output_dtypes=["f8"],
    ),
    "blocks of xarray": lambda: xr.map_blocks(
        lambda b: b + 1, image().chunk(x=16).B, template=image().chunk(x=16).B
    ),
    "in memory": lambda: da.ones((8, 8), chunks=4).persist(),
    "pure": lambda: da.from_delayed(dask.delayed(np.ones, pure=True)(4), (4,), dtype=float),
    "value": lambda: da.from_delayed(dask.delayed(np.ones(4)), (4,), dtype=float),
    "fused": lambda: dask.optimize(da.ones((8, 8), chunks=4).map_blocks(lambda b: b + 1)[1:, 1:] + 3)[0],
}


@pytest.mark.parametrize("kind", SAME)
def test_same_array_in_the_same_process(kind):
    assert explain(SAME[kind](), SAME[kind]()) == ""


@pytest.mark.long
def test_same_arrays_in_every_process(tmp_path):
    """The second process has another hash seed, and all lines are moved."""
    code = (
        "import xarray as xr, numpy as np, dask, dask.array as da\n"
        "from tests.test_run_identity import SAME, ZARR\n"
        "from xee_tf.identity import run_identity\n"
        "make = lambda k: da.ones(4, chunks=2).map_blocks(lambda b: b in {'a', 'b', k}, dtype=float)\n"
        "arrays = {name: build() for name, build in SAME.items()}\n"
        "arrays |= {name: build('a.zarr') for name, build in ZARR.items()}\n"
        "print(run_identity({'k': 1}, {**arrays, 'own': make(3)}).digest)\n"
    )
    image().chunk(y=32, x=24).to_zarr(tmp_path / "a.zarr", consolidated=False)
    found = set()
    for seed in "12":
        (tmp_path / "script.py").write_text("\n# a remark\n" * int(seed) + code)
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        found.add(subprocess.check_output([sys.executable, "script.py"], cwd=tmp_path, env=env, timeout=200))
    assert len(found) == 1


def test_chunk_sizes_may_be_numbers_of_numpy():
    values = np.arange(64.0).reshape(8, 8)
    chunks = ((np.int64(4), np.int64(4)), (4, 4))
    one, two = (da.from_array(values, chunks=each, name=False) for each in (4, chunks))
    assert explain(one[1:5] + 1, two[np.int64(1) : 5] + 1) == ""


DIFFERENT = {
    "pixel": (
        lambda: image().chunk(x=16).B,
        lambda: image().where(lambda ds: ds.B.min() < ds.B).chunk(x=16).B,
    ),
    "dtype": (lambda: da.ones(4, chunks=2), lambda: da.ones(4, chunks=2, dtype="f4")),
    "chunks": (lambda: da.ones(4, chunks=2), lambda: da.ones(4, chunks=4)),
    "order": (lambda: da.stack([da.ones(4), da.zeros(4)]), lambda: da.stack([da.zeros(4), da.ones(4)])),
    "slice": (lambda: da.arange(9, chunks=3)[1:5], lambda: da.arange(9, chunks=3)[2:6]),
    "constant": (lambda: da.ones(4) + 1, lambda: da.ones(4) + 2),
    "function": (
        lambda: da.ones(4).map_blocks(lambda b: b + 1),
        lambda: da.ones(4).map_blocks(lambda b: b - 1),
    ),
    "argument": (
        lambda: da.ones(4).map_blocks(np.power, 2.0),
        lambda: da.ones(4).map_blocks(np.power, 3.0),
    ),
    "seed": (lambda: da.random.default_rng(1).random(4), lambda: da.random.default_rng(2).random(4)),
    "no seed": (lambda: da.random.random(4), lambda: da.random.random(4)),
    "in memory": (lambda: da.ones(4).persist(), lambda: da.zeros(4).persist()),
    "delayed": (
        lambda: da.from_delayed(dask.delayed(np.ones, pure=True)(4), (4,), dtype=float),
        lambda: da.from_delayed(dask.delayed(np.zeros, pure=True)(4), (4,), dtype=float),
    ),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different_arrays(kind):
    one, two = DIFFERENT[kind]
    assert "the input 'B'" in explain(one(), two())
    # The name that the user knows is the same, and vouches for both.
    if one().dtype == two().dtype and one().shape == two().shape:
        assert explain(one(), two(), identity="7") == ""


@pytest.mark.parametrize("lazy", [False, True])
def test_array_that_a_user_changes_in_place(lazy):
    band = image().B
    before = run_identity({}, {"B": band.chunk(x=16) if lazy else band}).to_json()
    band.values[3, 5] += 1
    changed = run_identity({}, {"B": band.chunk(x=16) if lazy else band})
    assert "the input 'B' is not the same" in changed.explain_difference(before)


def load(path):
    return np.ones(4)


UNKNOWN = {
    "delayed": (lambda: da.from_delayed(dask.delayed(load)("a"), (4,), dtype=float), "dask.delayed"),
    "stack of delayed": (
        lambda: (
            da.stack([da.from_delayed(dask.delayed(load)(name), (4,), dtype=float) for name in "ab"]).rechunk(
                3
            )[1:]
            * 2
        ),
        "dask.delayed",
    ),
    "ufunc of a function": (
        lambda: da.ones(4).map_blocks(np.frompyfunc(lambda b: b, 1, 1), dtype=object),
        "the function of the ufunc",
    ),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_arrays_that_cannot_be_compared(kind):
    build, reason = UNKNOWN[kind]
    array = build()
    message = explain(array, array)
    assert "cannot be determined whether the input 'B' is the same" in message
    assert reason in message
    assert "identity='" in message
    assert explain(build(), build(), identity="2024") == ""
    stored = run_identity({}, {"B": array}, "2024").to_json()
    other = run_identity({}, {"B": array}, "2025")
    assert other.explain_difference(stored) == "the option identity was '2024' and is now '2025'"
    assert run_identity({}, {"B": array}).digest != run_identity({}, {"B": array}).digest


def test_array_that_is_persisted_on_a_cluster():
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        persisted = da.ones(4, chunks=2).persist()
        for array in (persisted, persisted + 1):
            assert "it is persisted on a Dask cluster" in explain(array, array)
            assert explain(array, array, identity="7") == ""


def test_functions_that_count_their_calls_stay_the_same():
    calls, numbers = [], {"calls": 0}

    def count(block):
        calls.append(block.shape)
        numbers["calls"] += 1
        return block

    array = da.ones(4, chunks=2).map_blocks(count, dtype=float)
    before = run_identity({}, {"B": array}).to_json()
    array.compute(scheduler="sync")
    assert calls
    assert run_identity({}, {"B": array}).explain_difference(before) == ""


MODULE = """
import numpy as np

K = {factor}


def scale(block):
    return helper(block) * K


def helper(block):
    {docstring}return block + {term}
"""


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"docstring": '"""Add."""\n\n    # A remark.\n    '}, True),
        ({"factor": 3}, False),
        ({"term": 2}, False),
    ],
    ids=["nothing", "docstring", "constant", "function"],
)
def test_edited_modules_are_noticed(changed, same, module_digest, tmp_path):
    """The function that blocks are mapped with is imported, and Dask pickles it by name."""
    assert (digest_of_module(tmp_path, **changed) == module_digest) == same


@pytest.fixture(scope="module")
def module_digest(tmp_path_factory):
    return digest_of_module(tmp_path_factory.mktemp("module"))


def digest_of_module(folder, **options):
    """Compute, in a new process, the digest of a run whose blocks are mapped with `MODULE`."""
    script = (
        "import dask.array as da\n"
        "from own import scale\n"
        "from xee_tf.identity import run_identity\n"
        "print(run_identity({}, {'B': da.ones(4, chunks=2).map_blocks(scale)}).digest)\n"
    )
    source = MODULE.format(**{"factor": 2, "term": 1, "docstring": "", **options})
    (folder / "own.py").write_text(source)
    env = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.check_output([sys.executable, "-c", script], env=env, timeout=100)


# -- Runs -----------------------------------------------------------------------------------------------


def test_differences_are_named_in_order():
    parts = {"the model": Content("1", "the function f"), "the option blend": "crop"}
    stored = run_identity(parts, {"B": np.ones(4), "C": np.ones(4)}).to_json()

    def difference(inputs=("B", "C"), **changed):
        now = {"the model": Content("1", "the function f"), "the option blend": "crop", **changed}
        return run_identity(now, {name: np.ones(4) for name in inputs}).explain_difference(stored)

    assert difference() == ""
    assert difference(**{"the option blend": "hann"}) == "the option blend was crop and is now hann"
    other = {"the model": Content("2", "the function g"), "the option blend": "hann"}
    assert difference(**other) == "the model was the function f and is now the function g"
    assert difference(**{"the model": Content("1", "another path")}) == ""
    long = run_identity({"the grid": "a" * 500 + "b"}, {}).explain_difference(
        run_identity({"the grid": "a" * 500 + "c"}, {}).to_json()
    )
    assert long == f"the grid was ...{'a' * 50}c and is now ...{'a' * 50}b"
    assert difference(["B"]) == "the input 'C' is missing now"
    assert difference(["B", "C", "D"]) == "the input 'D' was not part of it"
    assert "another version" in run_identity(parts, {}).explain_difference({"format": 4})
    unknown = difference(**{"the model": Content(None, "the function f", "name its version")})
    assert unknown == "it cannot be determined whether the model is the same as before: name its version"


def test_another_nodata_value_of_a_sample_is_noticed(tmp_path):
    def sample(**attributes):
        scene = image().assign(B=lambda ds: ds.B.astype("f8").assign_attrs(attributes))
        return sample_table(scene, None, tmp_path / "t", n=9, if_exists="resume")

    first = sample(_FillValue=3.0, title="a")
    assert sample(_FillValue=3.0, title="b") == first
    for attributes in ({"_FillValue": 4.0}, {}):
        with pytest.raises(DestinationExistsError, match=r"how the bands are read was .*nodata"):
            sample(**attributes)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["blocks", "windows", "random", "numpy"])
def test_identity_of_a_large_graph_takes_seconds(kind):
    array = {
        "blocks": lambda: da.ones((32_000, 32_000), chunks=100).map_blocks(lambda b: b + 1),
        "windows": lambda: da.ones((32_000, 32_000), chunks=100)[1:, 1:],
        "random": lambda: da.random.default_rng(1).random((32_000, 32_000), chunks=100),
        "numpy": lambda: da.from_array(np.ones((3_200, 3_200), "u1"), chunks=10),
    }[kind]()
    start = time.process_time()
    run_identity({}, {"B": array})
    assert time.process_time() - start < 8
