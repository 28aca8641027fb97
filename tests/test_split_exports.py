"""Tests of exports of some patches: samples, and splits without a common pixel."""

from __future__ import annotations

import json
import os

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st

import xee_tf
from tests.conftest import every_bucket
from tests.optional import optional
from tests.oracle import cut_patches
from tests.rasters import contents, raster, raw_records, without_keys
from tests.strategies import chunkings, examples
from tests.test_resume import Source
from xee_tf.errors import DestinationExistsError, GridMismatchError, OptionError
from xee_tf.sidecars import manifest_of

gpd = optional("geopandas")
tf = optional("tensorflow")

pytestmark = pytest.mark.usefixtures("small_blocks")
SHAPE = (150, 170)
OPTIONS = {"patch_dimensions": (16, 8), "kernel_size": (6, 5)}
SPLIT = {"train": 0.6, "test": 0.4}


def numbered(shape=SHAPE, chunks=(150, 170)):
    """Return a raster whose pixels have different values above 0, which float32 holds exactly."""
    values = 1 + np.arange(np.prod(shape), dtype="float32").reshape(shape)
    return raster({"pixel": values, "odd": (values % 2).astype("uint8")}).chunk(y=chunks[0], x=chunks[1])


def stored(result, band="pixel"):
    """Return the values of a band in each record, read by TensorFlow."""
    return [
        np.array(tf.train.Example.FromString(data).features.feature[band].float_list.value, "float32")
        for data in raw_records(result)
    ]


@st.composite
def cases(draw):
    shape = draw(st.tuples(st.integers(6, 40), st.integers(6, 40)))
    options = {
        "patch_dimensions": (draw(st.integers(1, 6)), draw(st.integers(1, 6))),
        "kernel_size": (draw(st.integers(1, 6)), draw(st.integers(1, 6))),
        "edge": draw(st.sampled_from(["drop", "pad"])),
        "compressed": draw(st.booleans()),
        "max_file_size": draw(st.sampled_from([1, 900, 2**30])),
        "seed": draw(st.integers(0, 50)),
    }
    chunks = draw(chunkings(shape[0])), draw(chunkings(shape[1]))
    return shape, chunks, options


def plain(options):
    return {"patch": options["patch_dimensions"], "kernel": options["kernel_size"], "edge": options["edge"]}


@given(cases(), st.one_of(st.integers(1, 30), st.floats(0.01, 1)))
@examples(20)
def test_samples_have_the_patches_of_a_whole_export(tmp_path_factory, case, n):
    shape, chunks, options = case
    folder = tmp_path_factory.mktemp("sample")
    ds = numbered(shape, chunks)[["pixel"]]
    result = ds.tfexport(folder / "s", sample=n, **options)
    patches, _ = cut_patches(ds["pixel"].values, default=0, **plain(options))
    chosen = xee_tf.sample_patches(result.grid, n, seed=options["seed"])
    found = stored(result)
    assert result.records == len(found) == len(chosen) == result.selected
    assert result.dropped == 0
    assert result.mixer is None
    for number, values in zip(chosen.patches.tolist(), found, strict=True):
        np.testing.assert_array_equal(values, patches[number].ravel())
    assert xee_tf.verify(result)
    # In their places, and masked elsewhere.
    opened = xee_tf.open_image(result)["pixel"].values
    height, width = result.grid.patch.shape
    inside = np.kron(chosen.mask, np.ones((height, width), bool))
    height, width = (min(lengths) for lengths in zip(opened.shape, inside.shape, shape, strict=True))
    assert (height, width) == tuple(map(min, inside.shape, shape))
    part = np.s_[:height, :width]
    truth = np.where(inside[part], ds["pixel"].values[part], np.nan)
    np.testing.assert_array_equal(opened[part], truth)


@given(cases(), st.one_of(st.none(), st.integers(1, 4), st.tuples(st.integers(1, 3), st.none())))
@examples(20)
def test_no_pixel_of_a_side_is_in_another(tmp_path_factory, case, block):
    shape, chunks, options = case
    folder = tmp_path_factory.mktemp("split")
    ds = numbered(shape, chunks)[["pixel"]]
    try:
        results = ds.tfexport(folder / "s", split=SPLIT, split_block=block, **options)
    except OptionError as error:
        assume("No patch is left" not in str(error))
        raise
    assert list(results) == list(SPLIT)
    pixels = {side: set(np.concatenate(stored(result)).tolist()) - {0.0} for side, result in results.items()}
    assert not pixels["train"] & pixels["test"]
    grid = results["train"].grid
    split = xee_tf.split_patches(grid, SPLIT, block=block, seed=options["seed"])
    for side, result in results.items():
        assert result.records == len(split[side])
        assert result.left_out == len(split.lost)
        manifest = manifest_of(json.loads((folder / f"s-{side}-image.tfexport").read_bytes()))
        assert manifest.patches.tolist() == split[side].patches.tolist()
    one = numbered(shape)[["pixel"]].tfexport(folder / "one" / "s", split=SPLIT, split_block=block, **options)
    assert contents(folder / "one") == {
        name: data for name, data in _files(folder).items() if name.startswith("s-")
    }
    assert list(one) == list(results)


def _files(folder):
    return without_keys({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})


@pytest.fixture
def expected(tmp_path):
    """Return the files of a split of a single chunk."""
    numbered().tfexport(tmp_path / "expected" / "s", split=SPLIT, max_file_size=30_000, **OPTIONS)
    return contents(tmp_path / "expected")


@pytest.mark.parametrize("chunks", [(7, 170), (64, 64), ((100, 3, 47), (9, 161))])
@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_bytes_do_not_depend_on_chunks_and_scheduler(tmp_path, expected, chunks, scheduler):
    with dask.config.set(scheduler=scheduler):
        numbered(chunks=chunks).tfexport(
            tmp_path / "here" / "s", split=SPLIT, max_file_size=30_000, **OPTIONS
        )
    assert contents(tmp_path / "here") == expected


def test_bytes_on_a_cluster_and_in_memory(tmp_path, expected):
    import fsspec
    from distributed import Client, LocalCluster

    options = {"split": SPLIT, "max_file_size": 30_000, **OPTIONS}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        numbered(chunks=(40, 40)).tfexport(tmp_path / "cluster" / "s", **options)
    assert contents(tmp_path / "cluster") == expected
    fs = fsspec.filesystem("memory")
    fs.rm("/splits", recursive=True) if fs.exists("/splits") else None
    with dask.config.set(scheduler="threads"):
        numbered(chunks=(40, 40)).tfexport("memory://splits/s", **options)
    found = {path.rsplit("/", 1)[-1]: fs.cat(path) for path in fs.find("/splits")}
    assert without_keys(found) == expected


@every_bucket
def test_bytes_in_buckets(expected, bucket):
    with dask.config.set(scheduler="threads"):
        numbered(chunks=(40, 40)).tfexport(
            f"{bucket.url}/s", split=SPLIT, max_file_size=30_000, storage_options=bucket.options, **OPTIONS
        )
    found = {key.rsplit("/", 1)[-1]: data for key, data in bucket.read().items()}
    assert without_keys(found) == expected


def counting(chunks, shape=(160, 160)):
    """Return a raster, and a list of the chunks that are loaded."""
    loads = []

    def load(block, block_info=None):
        loads.append(block_info[0]["chunk-location"])
        return block

    values = 1 + np.arange(np.prod(shape), dtype="float32").reshape(shape)
    lazy = da.from_array(values, chunks=chunks).map_blocks(load, dtype="float32", meta=np.empty((0, 0), "f4"))
    return raster({"pixel": values}).assign(pixel=(("y", "x"), lazy)), loads


@pytest.mark.parametrize("compressed", [True, False])
def test_each_chunk_is_loaded_once_for_all_sides(tmp_path, compressed):
    ds, loads = counting((32, 32))
    plan = ds.tfexport.plan(patch_dimensions=8, kernel_size=4, split=SPLIT)
    delayed = ds.tfexport(
        tmp_path / "s", patch_dimensions=8, kernel_size=4, split=SPLIT, compressed=compressed, compute=False
    )
    assert plan.exports == 2
    assert loads == []
    assert os.listdir(tmp_path) == []
    results = delayed.compute(scheduler="threads")
    assert list(results) == ["train", "test"]
    assert len(set(loads)) == len(loads) == 25


def test_chunks_without_selected_patches_are_not_loaded(tmp_path):
    ds, loads = counting((32, 32))
    grid = ds.tfexport.plan(patch_dimensions=8, kernel_size=4).grid
    chosen = xee_tf.PatchSelection(grid, [0, 1, 100])  # one in the middle of its chunk, two at a corner
    plan = ds.tfexport.plan(patch_dimensions=8, kernel_size=4, sample=chosen)
    result = ds.tfexport(tmp_path / "s", patch_dimensions=8, kernel_size=4, sample=chosen)
    assert result.records == plan.records == 3
    assert len(set(loads)) == len(loads) == plan.source_chunks < 15
    delayed = ds.tfexport(tmp_path / "d", patch_dimensions=8, kernel_size=4, sample=chosen, compute=False)
    assert len(delayed.__dask_graph__()) <= plan.tasks + 10


def test_tasks_of_a_split_are_planned(tmp_path):
    ds, _ = counting((16, 16), (480, 480))
    options = {"patch_dimensions": 4, "sample": 50, "compressed": False}
    plan = ds.tfexport.plan(**options)
    delayed = ds.tfexport(tmp_path / "s", compute=False, **options)
    assert len(plan.needed_blocks) <= 50
    assert abs(len(delayed.__dask_graph__()) - plan.tasks) < 0.1 * plan.tasks + 5


def test_samples_balanced_by_a_band(tmp_path):
    rng = np.random.default_rng(0)
    ds = numbered(chunks=(37, 64))
    cover = np.where(rng.random(SHAPE) < 0.0005, 3, 1).astype("uint8")
    ds["cover"] = (("y", "x"), cover)
    result = ds.tfexport(tmp_path / "s", sample={"n": 4, "class_band": "cover"}, patch_dimensions=8)
    labels = stored(result, "cover")
    assert sum((3 in patch) for patch in labels) >= 4
    assert result.records == 4  # all of them hold class 1, too
    labels = ds["cover"].rio.write_crs("EPSG:32633")
    sample = {"n": {3: 2, 1: 5}, "class_band": labels}
    other = ds[["pixel"]].tfexport(tmp_path / "o", sample=sample, patch_dimensions=8)
    assert other.records == 5
    plain = ds.drop_attrs()  # the georeference is in the options
    given_by_options = {"crs": "EPSG:32633", "transform": (30, 0, 0, 0, -30, 0)}
    again = plain.tfexport(
        tmp_path / "p", sample={"n": 4, "class_band": "cover"}, patch_dimensions=8, **given_by_options
    )
    assert stored(again)[0].tolist() == stored(result)[0].tolist()


def test_samples_of_polygons_and_blocks(tmp_path):
    import shapely

    ds = numbered()
    box = gpd.GeoSeries([shapely.box(700_000, 4_998_000, 702_400, 5_000_000)], crs="EPSG:32633")
    plan = ds.tfexport.plan(patch_dimensions=8, sample={"polygons": box.to_crs(4326)})
    assert plan.selection.mask.nonzero()[0].max() == 7
    assert plan.selection.mask.nonzero()[1].max() == 9
    spread = ds.tfexport.plan(patch_dimensions=8, sample={"per_block": 1, "block": 6})
    assert spread.records == 12
    both = ds.tfexport.plan(patch_dimensions=8, sample={"per_block": 1, "block": 3}, split=SPLIT)
    assert both.records == 25  # of 42


def test_a_given_split_is_exported(tmp_path):
    ds = numbered(chunks=(64, 64))
    plan = ds.tfexport.plan(**OPTIONS)
    split = xee_tf.split_patches(plan, SPLIT, block=(3, None), seed=5)
    results = ds.tfexport(tmp_path / "s", split=split, **OPTIONS)
    same = ds.tfexport(tmp_path / "t", split=SPLIT, split_block=(3, None), seed=5, **OPTIONS)
    for side in SPLIT:
        assert [f.crc32c for f in results[side].files] == [f.crc32c for f in same[side].files]
        assert results[side].left_out == same[side].left_out > 0
    sampled = ds.tfexport(tmp_path / "u", split=split, sample=0.5, seed=5, **OPTIONS)
    chosen = xee_tf.sample_patches(plan, 0.5, seed=5)
    for side in SPLIT:
        assert sampled[side].records == len(np.intersect1d(split[side].patches, chosen.patches))
    with pytest.raises(OptionError, match=r"made for patches with a margin of \(3, 2\) .* have \(3, 3\)"):
        ds.tfexport(tmp_path / "v", split=split, patch_dimensions=(16, 8), kernel_size=6)
    with pytest.raises(GridMismatchError, match=r"split\['train'\] selects patches of another grid: 18 x 10"):
        ds.tfexport(tmp_path / "v", split=split, patch_dimensions=8, kernel_size=5)
    moved = ds.assign_coords(x=ds.x + 30)
    with pytest.raises(GridMismatchError, match="Select from the plan or the result of the same export"):
        moved.tfexport(tmp_path / "v", split=split, **OPTIONS)
    mixer = xee_tf.Mixer.from_grid(plan.grid)
    of_mixer = xee_tf.split_patches(mixer, SPLIT, block=(3, None), seed=5, kernel_size=(6, 5))
    assert ds.tfexport(tmp_path / "w", split=of_mixer, **OPTIONS)["test"].records == results["test"].records


def test_masked_patches_and_index(tmp_path):
    pytest.importorskip("geopandas")
    values = numbered()["pixel"].values.copy()
    values[:, 100:] = np.nan
    ds = raster({"pixel": values}).chunk(y=40, x=40)
    results = ds.tfexport(
        tmp_path / "s", split=SPLIT, masked_threshold=0.5, index=True, patch_dimensions=10, split_block=1
    )
    split = xee_tf.split_patches(results["train"].grid, SPLIT, block=1)
    for side, result in results.items():
        valid = split[side].patches[split[side].patches % 17 < 10]
        assert result.records == len(valid)
        assert result.dropped == len(split[side]) - len(valid) > 0
        frame = gpd.read_parquet(tmp_path / f"s-{side}-index.parquet")
        assert frame["patch"].tolist() == valid.tolist()
        opened = xee_tf.open_image(result)["pixel"].values
        mask = np.zeros(255, bool)
        mask[valid] = True
        inside = np.kron(mask.reshape(15, 17), np.ones((10, 10), bool))
        np.testing.assert_array_equal(~np.isnan(opened), inside & ~np.isnan(values[:150, :170]))
    assert not any((tmp_path / f"s-{side}-mixer.json").exists() for side in SPLIT)


def test_series_of_selected_patches(tmp_path):
    values = 1 + np.arange(2 * 24 * 30, dtype="float32").reshape(2, 24, 30)
    ds = raster({"flat": values[0]})
    ds["series"] = (("time", "y", "x"), values)
    result = ds.chunk(y=7, x=11).tfexport(
        tmp_path / "s", sample=5, sequence_data=True, patch_dimensions=6, max_file_size=3000
    )
    assert result.records == 5 * 36
    opened = xee_tf.open_image(result)["series"]
    mask = np.kron(xee_tf.sample_patches(result.grid, 5).mask, np.ones((6, 6), bool))
    found = opened.transpose("time", "y", "x").values
    np.testing.assert_array_equal(found, np.where(mask, values[:, :24, :30], np.nan))


def test_steps_of_a_split_dimension_have_the_same_sides(tmp_path):
    values = 1 + np.arange(2 * 80 * 80, dtype="float32").reshape(2, 80, 80)
    ds = raster({"flat": values[0]}).drop_vars("flat")
    ds["B4"] = (("time", "y", "x"), values)
    ds = ds.assign_coords(time=np.array(["2024-05-01", "2024-06-01"], "datetime64[ns]"))
    results = ds.chunk(y=30, x=30).tfexport(tmp_path / "s", split_dim="time", split=SPLIT, patch_dimensions=8)
    assert list(results) == ["20240501-train", "20240501-test", "20240601-train", "20240601-test"]
    names = {path.name for path in tmp_path.iterdir()}
    assert "s_20240601-test-00000.tfrecord.gz" in names
    first, second = (xee_tf.open_image(tmp_path / f"s_2024{month}01-test") for month in ("05", "06"))
    assert (first["B4"].isnull() == second["B4"].isnull()).all()
    assert ds.tfexport.plan(split_dim="time", split=SPLIT, patch_dimensions=8).exports == 4


@pytest.mark.parametrize("compressed", [True, False])
def test_interrupted_splits_are_resumed(tmp_path, compressed):
    options = {
        "patch_dimensions": 16,
        "kernel_size": 4,
        "max_file_size": 10_000,
        "if_exists": "resume",
        "split": SPLIT,
        "split_block": (4, None),
        "compressed": compressed,
    }
    Source().image().tfexport(tmp_path / "whole" / "s", **options)
    with dask.config.set(scheduler="sync"), pytest.raises(OSError, match="interrupted"):
        Source(fail_at=7).image().tfexport(tmp_path / "again" / "s", **options)
    source = Source()
    results = source.image().tfexport(tmp_path / "again" / "s", **options)
    assert all(result.resumed for result in results.values())
    assert source.loads < 8
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")
    source = Source()
    again = source.image().tfexport(tmp_path / "again" / "s", **options)
    assert again == results
    assert source.loads == 0
    with pytest.raises(DestinationExistsError, match="the selected patches"):
        source.image().tfexport(tmp_path / "again" / "s", **(options | {"seed": 1}))


def test_reprs_tell_what_is_selected(tmp_path):
    ds = numbered()
    plan = ds.tfexport.plan(split=SPLIT, **OPTIONS)
    assert "are in no side, because they have pixels of two" in repr(plan)
    assert "2, one for each step or side" in repr(plan)
    result = ds.tfexport(tmp_path / "s", sample=9, **OPTIONS)
    assert "selected  9 patches, 5 %" in repr(result)
    named = ds.tfexport.plan(tmp_path / "t", sample=9, **OPTIONS)
    assert "no mixer, because not all patches are written" in repr(named)
    assert named.shards_of(0) in (range(1), range(0))
    assert xee_tf.split_patches(named, SPLIT).lost.grid == named.grid
    assert sum(map(len, xee_tf.split_patches(named, SPLIT, block=1).values())) <= 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": "many"}, "sample must be a number of patches, such as 1000, a proportion"),
        ({"sample": {}}, "sample must be a number of patches"),
        ({"sample": 0}, "n must be a whole number of at least 1; got 0"),
        ({"sample": {"m": 3}}, "sample has the unknown option 'm'; available"),
        ({"sample": {"n": 3, "class_band": "cover"}}, "class_band='cover' in sample is not a variable"),
        ({"sample": {"class_band": "odd"}}, "class_band= needs n="),
        ({"split": {"train": 2}}, "split must be proportions above 0 with a sum of at most 1"),
        ({"split": {"a/b": 0.5}}, "split must have names that can be part of a file name"),
        ({"split": {"b*": 0.5}}, "split must have names that can be part of a file name"),
        ({"split": {"b\0": 0.5}}, "split must have names that can be part of a file name"),
        ({"split": [0.7, 0.3]}, "split must be a mapping of names to proportions"),
        ({"split": {}}, "split must be a mapping of names to proportions"),
        ({"split_block": 3}, "split_block is only for split"),
        (
            {"split": {"Val": 0.5, "val": 0.2}},
            "split has the names 'Val' and 'val', which differ only in case",
        ),
        ({"split": SPLIT, "split_block": "a"}, "split_block must be a whole number of at least 1; got 'a'"),
        ({"split": SPLIT, "split_block": (2, 0)}, "split_block must be a whole number of at least 1; got 0"),
        ({"split": SPLIT, "split_block": 999}, "No patch is left for '(test|train)', of 180 patches in all"),
        ({"sample": 3, "seed": 0.5}, "seed must be a whole number; got 0.5"),
    ],
)
def test_errors_are_raised_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        numbered().tfexport(tmp_path / "s", patch_dimensions=(16, 8), **options)
    assert os.listdir(tmp_path) == []


def test_sides_with_common_pixels_are_refused(tmp_path):
    ds = numbered()
    grid = ds.tfexport.plan(**OPTIONS).grid
    first, columns = xee_tf.PatchSelection(grid, [0]), grid.patches_per_row
    distance = 1 + -(-2 * grid.margin.x // grid.patch.x)  # the next one has no pixel of the first
    for near in (0, 1, distance - 1, columns):
        split = {"a": first, "b": xee_tf.PatchSelection(grid, [columns - 1, near])}
        with pytest.raises(OptionError, match=rf"'a'\] and split\['b'\] have common pixels: patch {near} of"):
            ds.tfexport(tmp_path / "s", split=split, **OPTIONS)
    assert os.listdir(tmp_path) == []
    split = {"a": first, "b": xee_tf.PatchSelection(grid, [distance])}
    assert len(ds.tfexport(tmp_path / "s", split=split, **OPTIONS)) == 2


def test_empty_selections_are_refused(tmp_path):
    ds = numbered()
    grid = ds.tfexport.plan(**OPTIONS).grid
    nothing, something = xee_tf.PatchSelection(grid, []), xee_tf.PatchSelection(grid, [3])
    with pytest.raises(OptionError, match="sample selects no patches"):
        ds.tfexport(tmp_path / "s", sample=nothing, **OPTIONS)
    with pytest.raises(OptionError, match=r"split\['b'\] selects no patches"):
        ds.tfexport(tmp_path / "s", split={"a": something, "b": nothing}, **OPTIONS)
    xr.testing.assert_identical(ds, numbered())


def test_sides_are_not_read_together_by_mistake(tmp_path):
    pytest.importorskip("tensorflow")
    ds = numbered(chunks=(64, 64))
    sides = ds.tfexport(tmp_path / "s", split=SPLIT, split_block=2, **OPTIONS)
    options = {"inputs": "pixel", "batch_size": 1}
    with pytest.raises(OptionError, match=r"parts of one raster, .* pass one of them, as in tf_dataset"):
        xee_tf.tf_dataset(sides, **options)
    [first, second, *_] = sides
    both = xee_tf.tf_dataset([sides[first], sides[second]], **options)
    assert len(both) == sides[first].records + sides[second].records
    found = xee_tf.inspect(sides[first].manifest)
    assert found.records == sides[first].records < len(found.grid)
