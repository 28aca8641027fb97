"""Tests of graphs without a cluster: forms of collections, keys, loaded chunks, and chunks in memory."""

import math
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import DataNode, List, Task, TaskRef
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.optional import optional
from tests.rasters import contents, random_band, raster, without_keys
from tests.strategies import chunkings, examples
from xee_tf import DestinationExistsError, Model
from xee_tf.graph import BlockJob, Sources, add_task, store_chunks, work_on_blocks
from xee_tf.graph.arrays import ArraySpec, arrays_of_boxes
from xee_tf.graph.order import in_order, ordering_tasks

dd = optional("dask.dataframe")
gpd = optional("geopandas")

BANDS = {"a": random_band((45, 70), seed=1), "b": random_band((45, 70), "uint8", seed=2)}
CHUNKS = ((10, 30, 5), (35, 35))
OPTIONS = {"patch_dimensions": (16, 10), "kernel_size": 5}


def blocks(values):
    rows = np.split(values, np.cumsum(CHUNKS[0])[:-1])
    return {
        (y, x): block
        for y, row in enumerate(rows)
        for x, block in enumerate(np.split(row, np.cumsum(CHUNKS[1])[:-1], axis=1))
    }


def lazy(values):
    return da.from_array(values, chunks=CHUNKS)


def with_map_blocks(values):
    return lazy(values).map_blocks(lambda block: block + 1).map_blocks(lambda block: block - 1)


def rechunked_to_smaller_chunks(values):
    whole = da.from_array(values, chunks=-1).map_blocks(lambda block: block.copy())
    return whole.rechunk(CHUNKS)


def arrays_in_a_dict(values):
    name = f"arrays-{values.dtype}"
    return da.Array({(name, *at): block for at, block in blocks(values).items()}, name, CHUNKS, values.dtype)


def tuples_in_a_dict(values):
    name, one = f"tuples-{values.dtype}", values.dtype.type(1)
    graph = {(name, *at): (np.subtract, (f"more-{name}", *at), one) for at in blocks(values)}
    graph |= {(f"more-{name}", *at): (np.add, block, one) for at, block in blocks(values).items()}
    return da.Array(graph, name, CHUNKS, values.dtype)


def tasks_in_layers(values):
    name = f"tasks-{values.dtype}"
    data = {f"{name}-{at}": DataNode(f"{name}-{at}", block) for at, block in blocks(values).items()}
    tasks = {(name, *at): Task((name, *at), np.copy, TaskRef(f"{name}-{at}")) for at in blocks(values)}
    graph = HighLevelGraph(
        {f"data-{name}": data, name: tasks}, {f"data-{name}": set(), name: {f"data-{name}"}}
    )
    return da.Array(graph, name, CHUNKS, values.dtype)


def with_aliases(values):
    name = f"names-{values.dtype}"
    source = with_map_blocks(values)
    graph = HighLevelGraph.from_collections(
        name, {(name, *at): (source.name, *at) for at in blocks(values)}, [source]
    )
    return da.Array(graph, name, CHUNKS, values.dtype)


def from_delayed(values):
    found = blocks(values)
    rows = [
        [da.from_delayed(dask.delayed(np.copy)(found[y, x]), found[y, x].shape, values.dtype) for x in (0, 1)]
        for y in (0, 1, 2)
    ]
    return da.block(rows)


def optimized(values):
    return dask.optimize(with_map_blocks(values))[0]


def persisted(values):
    return with_map_blocks(values).persist(scheduler="threads")


FORMS = [
    lazy,
    with_map_blocks,
    rechunked_to_smaller_chunks,
    arrays_in_a_dict,
    tuples_in_a_dict,
    tasks_in_layers,
    with_aliases,
    from_delayed,
    optimized,
    persisted,
]


def image(form, bands=BANDS):
    ds = raster(bands)
    return ds.assign({name: (("y", "x"), form(values)) for name, values in bands.items()})


def difference(**options):
    return Model.from_function(
        lambda bands: bands[..., 0] - bands[..., 1], input_tile_size=16, output_bands=["d"], **options
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    raster(BANDS).tfexport(folder / "scene", **OPTIONS)
    return contents(folder)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_all_forms_of_arrays(tmp_path, expected, form, scheduler):
    ds = image(form)
    with dask.config.set(scheduler=scheduler):
        ds.tfexport(tmp_path / "scene", **OPTIONS)
        assert contents(tmp_path) == expected
        np.testing.assert_array_equal(difference().predict_image(ds).d, BANDS["a"] - BANDS["b"])


def test_bands_with_different_forms(tmp_path, expected):
    ds = image(persisted).assign(b=(("y", "x"), tuples_in_a_dict(BANDS["b"])))
    ds.tfexport(tmp_path / "scene", **OPTIONS)
    assert contents(tmp_path) == expected


def groups_of(sources, together):
    """Group the chunks of all bands by location (`together`), or put each chunk in a separate group."""
    places = [(number, *at) for number, band in enumerate(sources.keys) for at in blocks(BANDS["a"])]
    keys = {place: sources.keys[place[0]][place[1:]] for place in places}
    if not together:
        return {place: [key] for place, key in keys.items()}
    return {at: [keys[number, *at] for number in range(len(sources.keys))] for at in blocks(BANDS["a"])}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_tasks_keep_their_keys(form, fused, together):
    arrays = [form(values) for values in BANDS.values()]
    alone = {key: node for array in arrays for key, node in Sources.of([array]).graph.items()}
    sources = Sources.of_planes(arrays, [list(blocks(BANDS["a"]))] * len(arrays), fused=fused)
    if not fused:
        for key in alone.keys() & sources.graph.keys():
            assert sources.graph[key].dependencies == alone[key].dependencies
    graph, loaded = sources.loads(groups_of(sources, together))
    changed = {key for key, node in graph.tasks.items() if not isinstance(node, DataNode)}
    assert not changed & alone.keys()
    assert len([key for key in changed if not graph.tasks[key].dependencies]) == 1
    [chunks] = dask.threaded.get({**graph.tasks, "all": gather(loaded)}, ["all"])
    wanted = [blocks(values) for values in BANDS.values()]
    for group, values in zip(loaded, chunks, strict=True):
        expected = [band[group] for band in wanted] if together else [wanted[group[0]][group[1:]]]
        np.testing.assert_array_equal(values, expected)


def gather(loaded):
    """Return a task that collects the chunks of all groups."""
    return List(*(List(*each) if isinstance(each, list) else each for each in loaded.values()))


def test_one_task_loads_all_bands_of_block():
    bands = {name: random_band((90, 90), seed=seed) for seed, name in enumerate("abc")}
    lazy_bands = {name: da.from_array(values, chunks=10) + 1 for name, values in bands.items()}
    ds = raster(bands).assign({name: (("y", "x"), values) for name, values in lazy_bands.items()})
    options = {"patch_dimensions": 10, "kernel_size": 3}
    layout = ds.tfexport.plan(**options).block_layout
    edges = tuple(range(0, 91, 10))
    layout = replace(layout, y=replace(layout.y, edges=edges), x=replace(layout.x, edges=edges))
    job = BlockJob(
        "one", list(lazy_bands.values()), list(lazy_bands), layout, lambda layout, block, pieces: len(pieces)
    )
    graph, _ = work_on_blocks([job])
    loads = [node for key, node in graph.tasks.items() if key[0].startswith("load-")]
    assert len(loads) == 81
    assert all(node.data_producer for node in loads)  # a cluster starts only few of these at a time


def maximum_of_several(values):
    return da.stack([with_map_blocks(values + step) for step in range(5)]).max(axis=0)


def test_chunk_with_many_sources_is_loaded_by_several_tasks():
    """A single task would load the sources one after another, and keep all of them in memory."""
    arrays = [maximum_of_several(BANDS["a"] + 9 * band) for band in (0, 1)]
    sources = Sources.of_planes(arrays, [list(blocks(BANDS["a"]))] * 2, fused=True)
    graph, _ = sources.loads(groups_of(sources, True))
    assert len(graph.tasks) == len(sources.graph) + 1  # with the empty root task


def smoothed(values):
    """Return an array with chains of tasks, which Dask fuses under the key of the last one."""
    array = xr.DataArray(with_map_blocks(values), dims=("y", "x"))
    return array.rolling(x=3, min_periods=1).mean().data


@pytest.mark.parametrize("form", [with_map_blocks, smoothed])
def test_prediction_keeps_keys_of_image(form):
    ds = image(form)
    # Tasks must not be fused yet: Dask fuses them when it computes the prediction.
    sources = Sources.of([ds.a.data, ds.b.data])
    graph = dict(difference().predict_image(ds, merge=False).d.data.__dask_graph__())
    assert sources.graph.keys() <= graph.keys()
    assert all(graph[key].dependencies == node.dependencies for key, node in sources.graph.items())


@examples(30)
@given(st.data())
def test_shared_chunks_are_loaded_once(data):
    """Planes can share tasks: bands of one chunk, or pieces of one chunk."""
    loads = []

    def load(block, block_info=None):
        loads.append(tuple(block_info[0]["chunk-location"]))
        return block

    shape = (3, data.draw(st.integers(2, 12)), data.draw(st.integers(2, 12)))
    values = random_band(shape)
    before, after = ((3, *(data.draw(chunkings(side)) for side in shape[1:])) for _ in range(2))
    cube = da.from_array(values, chunks=before).map_blocks(load, meta=np.empty((0, 0, 0), "f4"))
    arrays = [cube[0], cube[1].rechunk(after[1:]), cube[1:]]
    places = [list(np.ndindex(*map(len, array.chunks[-2:]))) for array in arrays]
    sources = Sources.of_planes(arrays, places, fused=True)
    graph, loaded = sources.loads({number: list(keys.values()) for number, keys in enumerate(sources.keys)})
    chunks = iter(flatten(dask.get({**graph.tasks, "all": gather(loaded)}, ["all"])))
    found = [[[next(chunks) for _ in array.chunks[-1]] for _ in array.chunks[-2]] for array in arrays]
    for plane, wanted in zip(found, [values[0], values[1], values[1:]], strict=True):
        np.testing.assert_array_equal(np.block([list(row) for row in plane]), wanted)
    assert len(loads) == len(set(loads))


# -- Chunks in memory --------------------------------------------------------------------------------


class Counting:
    """An array that counts the chunks that are read, and those in memory at a time."""

    dtype, ndim = np.dtype("f4"), 2

    def __init__(self, shape):
        self.shape, self.alive, self.most, self.loads, self.lock = shape, 0, 0, [], threading.Lock()

    def __getitem__(self, key):
        rows, columns = np.ogrid[key]
        found = ((rows * 7 ^ columns * 13) & 255).astype("f4").view(Chunk)
        with self.lock:
            self.alive += 1
            self.most = max(self.most, self.alive)
            self.loads.append((key[0].start, key[1].start))
        weakref.finalize(found, self.freed)
        return found

    def freed(self):
        with self.lock:
            self.alive -= 1


class Chunk(np.ndarray):
    """An array that supports weak references."""


def counted(shape, chunk):
    source = Counting(shape)
    array = da.from_array(source, chunks=chunk, asarray=False, meta=np.empty((0, 0), "f4"))
    return source, raster({"a": np.zeros(shape, "f4")}).assign(a=(("y", "x"), array))


def test_export_keeps_few_chunks_in_memory(tmp_path):
    source, ds = counted((2560, 2560), 256)
    with dask.config.set(scheduler="sync"):
        ds.tfexport(tmp_path / "scene", patch_dimensions=32, kernel_size=9)
    assert len(source.loads) == len(set(source.loads)) == 100
    assert source.most <= 10  # a row


def test_prediction_keeps_few_chunks_in_memory():
    source, ds = counted((2560, 2560), 256)
    model = Model.from_function(
        lambda bands: bands[..., 0], input_tile_size=32, input_overlap_size=4, output_bands=["d"]
    )
    with dask.config.set(scheduler="sync"):
        model.predict_image(ds, merge=False).d.data.sum().compute()
    assert len(source.loads) == len(set(source.loads)) == 100
    assert source.most <= 20


@pytest.mark.parametrize("shape", [(512, 5120), (5120, 512)])
def test_gathered_prediction_keeps_few_chunks_in_memory(shape):
    source, ds = counted(shape, 128)
    model = Model.from_function(
        lambda bands: bands[..., 0], input_tile_size=32, input_overlap_size=4, output_bands=["d"]
    )
    with dask.config.set(scheduler="sync"):
        model.predict_image(ds, merge=False).compute()
    assert len(source.loads) == len(set(source.loads)) == 160
    assert source.most <= 64  # blocks of eight chunks; without turns 80


def test_results_wait_for_few_levels_of_empty_tasks():
    """On a cluster, each level waits for a free thread: with 46, the first of 90 blocks was stored last."""
    for side in (512, 5120):
        _, ds = counted((side, side), 128)
        model = Model.from_function(
            lambda bands: bands[..., 0], input_tile_size=32, input_overlap_size=4, output_bands=["d"]
        )
        tasks = dict(model.predict_image(ds, merge=False).d.data.dask)
        empty = {key: node for key, node in tasks.items() if "turn" in str(key)}
        depths = {}
        while len(depths) < len(empty):
            for key, node in empty.items():
                if depths.keys() >= node.dependencies:
                    depths[key] = 1 + max((depths[each] for each in node.dependencies), default=0)
        assert max(depths.values()) <= 6
        assert len(empty) < 220


@pytest.mark.parametrize("paths", [1, 2, 7, 100, 2**30, 2**400])
@pytest.mark.parametrize("count", [1, 2, 31, 256, 5000])
def test_earlier_turns_have_more_dependencies(paths, count):
    """By more than the tasks of two turns may differ, as far as levels are reserved for them."""
    empty, turns = ordering_tasks("turn", count, paths)
    assert len(empty) < 700
    weight = {}
    for key, node in empty.items():  # each after its dependencies
        weight[key] = 1 + sum(weight[other] for other in node.dependencies)
    sums = np.array([sum(weight[ref.key] for ref in turn) for turn in turns], object)
    assert (sums[:-1] - sums[1:] > min(paths, 2**39)).all()


@pytest.mark.parametrize("boxes", [(10, 10), (16, 16), (3, 110)])
def test_boxes_are_read_in_order(boxes):
    """Streams of gzip are read from the start if a box is before the last one."""
    found = []

    def read(_, box):
        found.append(box)
        return np.zeros((2, *(stop - start for start, stop in box)), "f4")

    specs = [ArraySpec(name, np.dtype("f4"), ()) for name in "ab"]
    chunks = tuple((4,) * length for length in boxes)
    arrays = arrays_of_boxes("boxes", 1, read, specs, chunks, order=lambda box: box)
    with dask.config.set(scheduler="sync"):
        dask.compute(*arrays)
    assert found == sorted(found)
    assert len(found) == math.prod(boxes)


def test_image_and_prediction_share_chunks():
    source, ds = counted((96, 96), 32)
    model = Model.from_function(lambda bands: bands[..., 0], input_tile_size=32, output_bands=["d"])
    found = model.predict_image(ds).compute()
    np.testing.assert_array_equal(found.a, found.d)
    assert len(source.loads) == 9


@pytest.mark.parametrize("dim", ["time", "band"])
def test_series_and_predictions_share_chunks(dim):
    loads = []

    def load(block, block_info=None):
        loads.append(tuple(block_info[0]["chunk-location"]))
        return block

    values = random_band((4, 64, 96))
    cube = da.from_array(values, chunks=(2, 32, 32)).map_blocks(load, meta=np.empty((0, 0, 0), "f4"))
    series = raster({"a": values[0]}).a.expand_dims({dim: 4}).copy(data=cube)
    model = Model.from_function(lambda bands: bands[..., 0], input_tile_size=32, output_bands=["d"])
    predicted = model.predict_image(series.assign_attrs(crs="EPSG:32633"), merge=False)
    found, prediction = dask.compute(series, predicted)
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(prediction.d, values if dim == "time" else values[0])
    assert len(loads) == len(set(loads)) == 12


def test_ordering_a_long_chain_is_fast():
    """Tasks must have a single root: with separate roots, 10,000 chunks took a minute and 10 GB."""
    array = da.from_array(Counting((51_200, 51_200)), chunks=1024, meta=np.empty((0, 0), "f4"))
    sources = Sources.of([array], fused=True)
    graph, loaded = sources.loads(sources.by_number())
    tasks = graph.tasks
    blocks = [add_task(tasks, number, len, chunks) for number, chunks in loaded.items()]
    in_order(graph, blocks, "chain")
    start = time.process_time()
    dask.order.order(tasks)
    assert time.process_time() - start < 1


# -- Annotations -------------------------------------------------------------------------------------


def annotations_of(graph, name):
    found = {}
    for layer in graph.layers.values():
        value = (layer.annotations or {}).get(name)
        values = {key: value(key) if callable(value) else value for key in layer}
        found |= {key: value for key, value in values.items() if value is not None}
    return found


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [("resources", {"GPU": 1}, [{"GPU": 1}]), ("column", lambda key: key[-1] + 5, [5, 6])],
)
def test_annotations_survive(tmp_path, name, value, wanted):
    ds = image(lazy)
    with dask.annotate(**{name: value}):
        ds["a"] = ds["a"].copy(data=ds["a"].data.map_blocks(lambda block: block + 0, dtype="f4"))
    ds["a"] = ds["a"] + 1
    for graph in (
        ds.tfexport(tmp_path / "scene", compute=False, **OPTIONS).dask,
        ds.tfexport.table(None, tmp_path / "t", n=3, compute=False).dask,
        difference().predict_image(ds, merge=False).d.data.dask,
    ):
        found = annotations_of(graph, name)
        assert len(found) == 6
        assert [each for each in wanted if each in found.values()] == wanted


def test_enclosing_annotation_applies_to_all_tasks(tmp_path):
    with dask.annotate(retries=3):
        delayed = image(lazy).tfexport(tmp_path / "scene", compute=False, **OPTIONS)
    assert annotations_of(delayed.dask, "retries") == dict.fromkeys(delayed.dask, 3)


# -- Tables and Delayeds -----------------------------------------------------------------------------


def test_all_forms_of_tables(tmp_path):
    frame = pd.DataFrame({"a": np.arange(25.0), "b": np.arange(25) % 3})
    rows = xr.Dataset({name: ("row", frame[name].to_numpy()) for name in frame}).chunk(row=7)
    lazy_frame = dd.from_pandas(frame, npartitions=3)
    forms = {
        "rows": rows,
        "persisted rows": rows.persist(),
        "one persisted": rows.assign(a=rows.a.persist()),
        "optimized rows": dask.optimize(rows)[0],
        "frame": lazy_frame,
        "persisted frame": lazy_frame.persist(scheduler="threads"),
        "optimized frame": dask.optimize(lazy_frame)[0],
    }
    for name, table in forms.items():
        xee_tf.export_table(table, tmp_path / name)
        pd.testing.assert_frame_equal(xee_tf.open_table(tmp_path / f"{name}.tfrecord.gz"), frame.astype("f4"))


def test_several_exports_in_one_computation(tmp_path):
    """Dask merges the graphs, so that names of layers and tasks must be unique."""
    ds = image(with_map_blocks)
    rows = xr.Dataset({name: ("row", np.arange(12.0)) for name in "ab"}).chunk(row=5)
    other = {name: values + 1 for name, values in BANDS.items()}
    dask.compute(
        ds.tfexport(tmp_path / "one", compute=False, **OPTIONS),
        image(with_map_blocks, other).tfexport(tmp_path / "other", compute=False, **OPTIONS),
        ds.tfexport.table(None, tmp_path / "t", compute=False),
        xee_tf.export_table(rows, tmp_path / "rows", compute=False),
        xee_tf.export_table(rows[["a"]], tmp_path / "a", compute=False),
    )
    whole = xee_tf.open_image(tmp_path / "one-mixer.json")
    more = xee_tf.open_image(tmp_path / "other-mixer.json")
    height, width = whole.a.shape
    np.testing.assert_array_equal(whole.a, BANDS["a"][:height, :width])
    np.testing.assert_array_equal(more.b, other["b"][:height, :width])
    assert list(xee_tf.open_table(tmp_path / "rows.tfrecord.gz")) == ["a", "b"]
    assert list(xee_tf.open_table(tmp_path / "a.tfrecord.gz")) == ["a"]
    assert len(xee_tf.open_table(tmp_path / "t.tfrecord.gz")) == 45 * 70


def lazy_exports(folder, **options):
    ds = image(lazy)
    rows = xr.Dataset({"a": ("row", np.arange(12.0))})
    more = {"compute": False, **options}
    return {
        "image": lambda step: (ds + step).assign_attrs(ds.attrs).tfexport(folder / "s", **OPTIONS, **more),
        "steps": lambda step: (
            (ds + step)
            .assign_attrs(ds.attrs)
            .expand_dims(time=2)
            .tfexport(folder / "s", split_dim="time", **OPTIONS, **more)
        ),
        "table": lambda step: xee_tf.export_table(rows + step, folder / "s", **more),
        "sample": lambda step: (ds + step).assign_attrs(ds.attrs).tfexport.table(None, folder / "s", **more),
    }


@pytest.mark.parametrize("kind", ["image", "steps", "table", "sample"])
def test_delayed_checks_existing_files_again(tmp_path, kind):
    make = lazy_exports(tmp_path)[kind]
    first, second = make(0), make(1)
    assert not list(tmp_path.iterdir())
    first.compute()
    before = contents(tmp_path)
    for again in (second, first):
        with pytest.raises(DestinationExistsError, match=r"planned.*if_exists='overwrite'"):
            again.compute()
        visible = [file for file in sorted(tmp_path.iterdir()) if file.name[0] != "."]
        assert without_keys({file.name: file.read_bytes() for file in visible}) == before
        assert kind == "steps" or len(list(tmp_path.iterdir())) == len(visible)


@pytest.mark.parametrize("kind", ["image", "table", "sample"])
def test_delayed_overwrites_existing_files(tmp_path, kind):
    make = lazy_exports(tmp_path, if_exists="overwrite")[kind]
    first, second = make(0), make(1)
    first.compute()
    before = contents(tmp_path)
    second.compute()
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path) != before


def test_array_expressions(tmp_path):
    """Dask arrays with query planning, which must be enabled before Dask is imported."""
    code = """
import sys, dask
dask.config.set({"array.query-planning": True})
import dask.array as da, numpy as np, xarray as xr, xee_tf
values = np.arange(4096, dtype="f4").reshape(64, 64)
lazy = {band: (("y", "x"), da.from_array(values + i, chunks=(20, 32)) * 2) for i, band in enumerate("ab")}
place = {"y": -30 * np.arange(64.0), "x": 30 * np.arange(64.0)}
ds = xr.Dataset(lazy, place, attrs={"crs": "EPSG:32633"})
ds.tfexport(sys.argv[1] + "/s", patch_dimensions=16, kernel_size=5)
assert (xee_tf.open_image(sys.argv[1] + "/s-mixer.json").b.values == 2 * values + 2).all()
model = xee_tf.Model.from_function(lambda b: b[..., 1] - b[..., 0], input_tile_size=16, output_bands=["d"])
assert (model.predict_image(ds, merge=False).d.values == 2).all()
assert ds.tfexport.table(None, sys.argv[1] + "/t").records == 4096
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[1])


# -- Running graphs --------------------------------------------------------------------------------------


class Target:
    """A target whose first chunk fails while others are being written."""

    def __init__(self):
        self.begun, self.ended, self.fails = [], [], False

    def __setitem__(self, place, values):
        self.begun.append(place)
        if self.fails and place == self.begun[0]:
            time.sleep(0.2)
            raise ValueError("the first chunk")
        time.sleep(0.5 if self.fails else 0)
        self.ended.append((place, values.copy()))


@pytest.mark.parametrize("kind", ["threads", "pool", "multiprocessing pool", "executor"])
def test_running_tasks_are_awaited(kind):
    """After an error, no thread writes any more, in the pools of Dask and of the user."""
    threads = ThreadPoolExecutor(3)
    old = ThreadPool(3)
    config = {
        "threads": {"num_workers": 3},
        "pool": {"pool": threads},
        "multiprocessing pool": {"pool": old},
        "executor": {"scheduler": threads},
    }
    values = np.arange(60).reshape(12, 5)
    target = Target()
    with dask.config.set(config[kind]):
        store_chunks({"a": da.from_array(values, chunks=(1, 5))}, [target], False)
        stored = np.zeros_like(values)
        for place, chunk in target.ended:
            stored[place] = chunk
        np.testing.assert_array_equal(stored, values)
        target = Target()
        target.fails = True
        with pytest.raises(ValueError, match="the first chunk"):
            store_chunks({"a": da.from_array(values, chunks=(1, 5))}, [target], False)
    begun = len(target.begun)
    assert len(target.ended) == begun - 1
    time.sleep(0.6)
    assert (len(target.begun), len(target.ended)) == (begun, begun - 1)
    assert begun < 12
    assert threads.submit(lambda: 1).result() == 1  # the pool of the user can still be used
    threads.shutdown()
    old.terminate()
    old.join()


# -- Size of graphs ----------------------------------------------------------------------------------


def large_image(side: int, chunk: int = 512) -> xr.Dataset:
    values = {name: (("y", "x"), da.zeros((side, side), chunks=chunk, dtype="f4")) for name in "ab"}
    coords = {"y": -np.arange(side) - 0.5, "x": np.arange(side) + 0.5}
    return xr.Dataset(values, coords, attrs={"crs": "EPSG:32618"})


def test_graph_of_region_does_not_depend_on_the_raster(tmp_path):
    region = (slice(10_240, 11_264), slice(10_240, 11_264))  # 2 x 2 chunks, in 4 x 4 with the margin
    options = {"region": region, "patch_dimensions": 256, "kernel_size": 32, "compute": False}
    delayed = [large_image(side).tfexport(tmp_path / "r", **options) for side in (12_000, 150_000)]
    counts = [len(dict(each.__dask_graph__())) for each in delayed]
    assert counts[0] == counts[1] < 70


def test_graph_of_sample_does_not_depend_on_the_raster(tmp_path):
    points = gpd.GeoSeries(gpd.points_from_xy([700.5, 9000.5], [-300.5, -5000.5]), crs=32618)
    delayed = [
        large_image(side).tfexport.table(points, tmp_path / "t", compute=False) for side in (12_000, 100_000)
    ]
    counts = [len(dict(each.__dask_graph__())) for each in delayed]
    assert counts[0] == counts[1] < 30
