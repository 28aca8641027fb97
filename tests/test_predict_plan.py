"""Compare the plans of predictions with what their runs call, send, receive and return."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xee_tf
from tests.optional import optional
from tests.rasters import raster
from tests.strategies import chunkings, sizes
from xee_tf import Model, OptionError

orjson = optional("orjson")

CALLS: list[np.ndarray] = []


def recording(pixels: np.ndarray) -> np.ndarray:
    """The first band; records what it gets."""
    CALLS.append(pixels)
    return pixels[..., 0]


def calls_of(result: xr.Dataset) -> list[np.ndarray]:
    CALLS.clear()
    result.compute(scheduler="sync")
    return list(CALLS)


def image(shape: tuple[int, int], chunks: Any, dtype: str = "float32", steps: int = 0, bands: int = 2) -> Any:
    lead = (steps,) if steps else ()
    dims = ("time", "y", "x")[-2 - len(lead) :]
    ds = raster({"template": np.zeros(shape)}).drop_vars("template")
    for number in range(bands):
        values = np.random.default_rng(number).integers(0, 99, (*lead, *shape)).astype(dtype)
        ds[f"B{number}"] = dims, da.from_array(values, chunks=((1,) * steps, *chunks)[-len(dims) :])
    return ds


@st.composite
def cases(draw: Any) -> tuple[Any, ...]:
    shape, tile = draw(sizes(2, 40)), draw(sizes(1, 12))
    chunks = draw(chunkings(shape.y)), draw(chunkings(shape.x))
    dtype, steps = draw(st.sampled_from(["float32", "uint8"])), draw(st.sampled_from([0, 0, 3]))
    return shape.shape, chunks, dtype, steps, tile.xy, draw(st.integers(0, 2))


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=20)
@given(cases(), st.sampled_from([None, 1, 3, 7]), st.booleans(), st.floats(0, 1), st.booleans())
def test_plan_equals_the_calls(
    case: Any, batch_size: int | None, skip: bool, masked: float, average: bool
) -> None:
    shape, chunks, dtype, steps, tile, overlap = case
    ds = image(shape, chunks, dtype, steps)
    if dtype == "float32":
        rng = np.random.default_rng(1)
        ds["B0"] = ds.B0.where(xr.DataArray(rng.random(shape) >= masked, dims=("y", "x")))
    square = (tile[0], tile[0])
    model = Model.from_function(
        recording,
        input_tile_size=square if average else tile,
        input_overlap_size=overlap,
        output_bands=["p"],
    )
    options: Any = {
        "batch_size": batch_size,
        "skip_masked": skip,
        "augment": "d4" if average else None,
        "blend": "hann" if average and overlap else "crop",
    }
    plan = model.plan(ds, **options)
    result = model.predict_image(ds, merge=False, **options)
    calls = calls_of(result)
    assert plan.exact == (dtype == "uint8" or not skip)
    found = len(calls), sum(call.nbytes for call in calls)
    if plan.exact:
        assert found == (plan.batches, plan.sent)
    else:
        assert found[0] <= plan.batches
        assert found[1] <= plan.sent
    assert max((len(call) for call in calls), default=0) <= plan.batch_size
    assert plan.unit == "tile"
    tiles = sum(map(len, calls)) / (8 if average else 1)
    assert tiles == plan.tiles if plan.exact else tiles <= plan.tiles
    [pixels] = plan.inputs.values()
    assert all(pixels.allows(call.shape) and call.dtype == pixels.dtype for call in calls)
    assert pixels.shape == (None, *plan.tile.shape, 2)
    assert plan.requests is None
    for band in plan.bands:
        assert result[band.name].dtype == band.dtype
        assert result[band.name].shape == (*band.shape, *plan.shape.shape)
        assert result[band.name].dims[:-2] == band.dims
    assert {band.name for band in plan.bands} == set(result.data_vars)
    assert plan.result_bytes == sum(band.nbytes for band in result.data_vars.values())
    assert plan.tasks == len(dict(result.__dask_graph__()))
    chunksizes = [band.chunksizes for band in result.data_vars.values()]
    assert {(max(each["x"]), max(each["y"])) for each in chunksizes} == {plan.chunks.xy}


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=10)
@given(cases(), st.sampled_from([None, 7]), st.floats(0, 1))
def test_plan_of_pixels_equals_the_calls(case: Any, batch_size: int | None, masked: float) -> None:
    shape, chunks, dtype, steps, _, _ = case
    ds = image(shape, chunks, dtype, steps)
    if dtype == "float32":
        rng = np.random.default_rng(1)
        ds["B0"] = ds.B0.where(xr.DataArray(rng.random(shape) >= masked, dims=("y", "x")))
    model = Model.from_function(recording, unit="pixel", output_bands=["p"])
    plan = model.plan(ds, batch_size=batch_size)
    calls = calls_of(model.predict_image(ds, merge=False, batch_size=batch_size))
    assert plan.exact == (dtype == "uint8")
    assert plan.tiles == math.prod(shape) * max(1, steps)
    found = len(calls), sum(call.nbytes for call in calls)
    if plan.exact:
        assert found == (plan.batches, plan.sent)
    else:
        assert found[0] <= plan.batches
        assert found[1] <= plan.sent
    [pixels] = plan.inputs.values()
    assert pixels.shape == (None, 2)
    assert all(pixels.allows(call.shape) and call.dtype == pixels.dtype for call in calls)
    assert "masked pixels" in repr(plan) or plan.exact
    assert "tile" not in repr(plan) + plan._repr_html_()


def test_tiles_of_another_scale_and_outputs_with_values() -> None:
    ds = image((90, 70), ((45, 45), (70,)), "uint8")
    model = Model.from_function(
        lambda pixels: np.repeat(pixels[:, ::2, ::2, :1], 3, -1),
        input_tile_size=16,
        output_tile_size=8,
        output_bands={"p": {"type": "uint8", "dimensions": 1, "shape": [3]}},
    )
    plan = model.plan(ds)
    result = model.predict_image(ds, merge=False)
    assert (plan.shape.shape, plan.bands[0].shape) == ((45, 35), (3,))
    assert result.p.shape == (3, 45, 35)
    assert plan.received == plan.tiles * 8 * 8 * 3
    assert plan.result_bytes == result.p.nbytes


@pytest.mark.parametrize("grid", ["image", "model"])
def test_plan_in_the_projection_of_the_model(grid: Any) -> None:
    pytest.importorskip("pyproj")
    ds = image((60, 50), ((30, 30), (50,)))
    model = Model.from_function(
        recording, input_tile_size=16, output_bands=["p"], proj=("EPSG:32632", 60), fix_input_proj=True
    )
    plan = model.plan(ds, output_grid=grid)
    result = model.predict_image(ds, merge=False, output_grid=grid)
    assert plan.grid.crs == "EPSG:32632"
    assert plan.shape.shape == result.p.shape
    assert not plan.exact  # some tiles are outside the image
    assert 0 < len(calls_of(result)) <= plan.batches
    assert plan.tasks == len(dict(result.__dask_graph__()))


def test_plan_of_no_steps() -> None:
    ds = image((20, 20), ((20,), (20,)), steps=3).isel(time=slice(0, 0))
    plan = Model.from_function(recording, input_tile_size=8, output_bands=["p"]).plan(ds)
    assert (plan.tiles, plan.batches, plan.sent, plan.source_chunks, plan.task_memory) == (0, 0, 0, 0, 0)
    assert "0 of time" in repr(plan)


def test_plan_reads_no_pixel() -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError("a pixel was read")

    ds = image((64, 64), ((32, 32), (64,)))
    ds["B0"] = ("y", "x"), ds.B0.data.map_blocks(fail, dtype="float32")
    model = Model.from_function(recording, input_tile_size=16, output_bands=["p"])
    CALLS.clear()
    with dask.config.set(scheduler=fail):
        plan = model.plan(ds)
        repr(plan), plan._repr_html_()
    assert not CALLS


def test_million_tiles_are_planned_quickly() -> None:
    """The work grows with the number of blocks, not with that of tiles."""
    ds = xr.Dataset(
        {"B0": (("y", "x"), da.zeros((1 << 17, 1 << 17), dtype="uint8", chunks=1 << 14))},
        {"y": -10.0 * np.arange(1 << 17), "x": 10.0 * np.arange(1 << 17)},
    ).rio.write_crs("EPSG:32633")
    plan = Model.from_function(recording, input_tile_size=32, output_bands=["p"]).plan(ds)
    assert plan.tiles == plan.sent / 32**2 == 1 << 24
    assert plan.tasks < 2000


# -- Requests ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(known_models: Path) -> Iterator[xee_tf.Server]:
    pytest.importorskip("grpc")
    with xee_tf.serve(known_models) as server:
        yield server


ENDPOINT = "projects/p/locations/us-central1/endpoints/"

HOSTED: dict[str, Any] = {
    "grpc": {"transport": "grpc"},
    "json": {"transport": "rest"},
    "SERIALIZED_TF_TENSORS": {"name": "prepared"},
    "GRPC_TF_TENSORS": {"name": "known", "route": "rawPredict"},
    "GRPC_SERIALIZED_TF_TENSORS": {"name": "prepared", "route": "rawPredict"},
}


def hosted(server: xee_tf.Server, kind: str, **options: Any) -> Model:
    given = HOSTED[kind]
    if "transport" in given:
        url = server.grpc if given["transport"] == "grpc" else server.url
        return Model.from_tf_serving(url, "known", **given, **options)
    rest = {key: value for key, value in given.items() if key != "name"}
    options |= {"payload_format": kind, "base_url": server.url, "credentials": None}
    return Model.from_vertex_ai(ENDPOINT + given["name"], **rest, **options)


@pytest.mark.parametrize(
    ("kind", "masked", "limit"),
    [*((kind, False, 9_000) for kind in HOSTED), ("grpc", True, 9_001), ("json", True, 9_001)],
)
def test_plan_equals_the_requests(server: xee_tf.Server, kind: str, masked: bool, limit: int) -> None:
    ds = image((70, 50), ((35, 35), (50,)), "float32" if masked else "uint8", bands=3)
    if masked:
        ds["B1"] = ds.B1.where(ds.y < ds.y.values[20])
    model = hosted(
        server,
        kind,
        max_payload_bytes=limit,
        inputs={"B0": "a", "B1": "b", "B2": "b"},
        input_type_override=dict.fromkeys(["B0", "B1", "B2"], "float32"),
        input_tile_size=8,
        output_bands={"box": "float32", "count": "int32"},
    )
    plan = model.plan(ds, batch_size=20, price_per_million_requests=1500)
    assert model.stats().requests == 0
    model.predict_image(ds, merge=False, batch_size=20).compute()
    stats = model.stats()
    assert stats.failures == stats.retries == 0
    assert plan.exact == (not masked and kind != "json")
    if plan.exact:
        assert (plan.requests, plan.sent) == (stats.requests, stats.bytes_sent)
        assert plan.received == pytest.approx(stats.bytes_received, rel=0.1)
        assert f"  requests  {plan.requests}, the largest with" in repr(plan)
    else:
        assert stats.requests <= plan.requests
        assert stats.bytes_sent <= plan.sent
        assert f"  requests  at most {plan.requests}, the largest with up to" in repr(plan)
    assert plan.request_bytes <= limit
    assert plan.cost == pytest.approx(plan.requests * 0.0015)
    [cost] = re.findall(r"  cost +(?:at most )?([0-9.]+) at 1,500 per million requests", repr(plan))
    assert float(cost) == pytest.approx(plan.cost, abs=0.005 if plan.cost >= 0.01 else 0.0005)
    assert ("numbers are sent as text" in repr(plan)) == (kind == "json")


def test_amounts_are_readable(server: xee_tf.Server) -> None:
    ds = image((32, 32), ((32,), (32,)), "uint8", bands=3)
    bands = dict.fromkeys(["B0", "B1", "B2"], "float32")
    options: dict[str, Any] = {"inputs": {"B0": "a", "B1": "b", "B2": "b"}, "input_type_override": bands}
    model = hosted(
        server, "grpc", max_payload_bytes=9_000, input_tile_size=8, output_bands={"box": "float32"}, **options
    )
    requests = model.plan(ds).requests
    assert requests == 2
    for price, cost, shown in (
        (2_500_000, "5", "2,500,000"),
        (6_172_840_000, "12,345.68", "6,172,840,000"),
        (1234.5, "0.0025", "1,234.50"),
        (0.004, "0.000000008", "0.004"),
    ):
        text = repr(model.plan(ds, price_per_million_requests=price))
        assert f"  cost      {cost} at {shown} per million requests" in text


def test_bound_where_the_longest_numbers_do_not_fit(server: xee_tf.Server) -> None:
    """A tile of short numbers fits in a request that is too small for one of the longest numbers."""
    ds = image((32, 32), ((32,), (32,)), "uint8", bands=3)
    model = hosted(
        server,
        "json",
        max_payload_bytes=1800,
        inputs={"B0": "a", "B1": "b", "B2": "b"},
        input_type_override=dict.fromkeys(["B0", "B1", "B2"], "float32"),
        input_tile_size=8,
        output_bands={"box": "float32"},
    )
    plan = model.plan(ds)
    model.predict_image(ds, merge=False).compute()
    stats = model.stats()
    assert stats.answered == stats.requests <= plan.requests == plan.tiles
    assert stats.bytes_sent <= plan.sent == plan.tiles * 1800


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint32", "int64", "bool"])
@pytest.mark.parametrize("payload_format", ["RAW_JSON", "ND_ARRAYS"])
def test_no_batch_is_larger_than_the_largest(payload_format: str, dtype: str) -> None:
    pytest.importorskip("orjson")
    from xee_tf.remote.payloads import create_payload

    payload = create_payload(payload_format, numbers_as_strings=False)
    assert payload.sizes_vary
    items: Any = {"a": (dtype, (4, 5, 1)), "b": ("float32", (4, 5, 1))}
    largest = len(payload.encode(payload.largest_batch(items, 300)))
    rng = np.random.default_rng(0)
    for power in range(-40, 40, 2):
        batch = {
            name: _random(kind, (300, *shape), rng, 10.0**power) for name, (kind, shape) in items.items()
        }
        assert len(payload.encode(batch)) <= largest


def _random(dtype: Any, shape: tuple[int, ...], rng: np.random.Generator, size: float) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        with np.errstate(over="ignore"):
            return (-rng.uniform(1, 10, shape) * size).astype(dtype)
    return rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype="uint8").view(dtype)[..., 0]


def test_no_float_is_longer_than_the_longest() -> None:
    pytest.importorskip("orjson")
    from xee_tf.remote.payloads.json_arrays import encode_elements, longest_value

    rng = np.random.default_rng(0)
    for name, bits in (("float32", "uint32"), ("float64", "uint64")):
        longest = len(encode_elements(longest_value(name)[None])[0])
        anything = rng.integers(0, np.iinfo(bits).max, 50_000, dtype=bits).view(name)
        with np.errstate(over="ignore", under="ignore"):
            usual = [(-rng.uniform(1, 10, 5000) * 10.0**power).astype(name) for power in range(-12, 20)]
        for values in (anything, *usual):
            assert max(map(len, encode_elements(values))) <= longest


def test_strings_among_the_inputs_are_counted() -> None:
    """The values of properties are known, so that their size is."""
    pytest.importorskip("grpc")
    model = Model.from_tf_serving(
        "localhost:1",
        "m",
        transport="grpc",
        input_tile_size=8,
        input_properties=["season"],
        output_bands=["p"],
    )
    from xee_tf.predict import plan as module  # noqa: F401

    texts = ["dry", "a much longer season than the other one"]
    ds = image((8, 8), ((8,), (8,)), bands=1)
    sizes_of = []
    for text in texts:
        model = Model.from_vertex_ai(
            ENDPOINT + "1",
            payload_format="GRPC_TF_TENSORS",
            credentials=None,
            input_tile_size=8,
            input_properties=["season"],
            output_bands=["p"],
        )
        sizes_of.append(model.plan(ds, properties={"season": text}).sent)
    assert sizes_of[1] - sizes_of[0] == len(texts[1]) - len(texts[0])


def test_price_of_a_model_without_requests_is_an_error() -> None:
    ds = image((8, 8), ((8,), (8,)))
    model = Model.from_function(recording, input_tile_size=8, output_bands=["p"])
    with pytest.raises(OptionError, match="price_per_million_requests is the price of a model on a server"):
        model.plan(ds, price_per_million_requests=1)
    with pytest.raises(OptionError, match=r"price_per_million_requests must be a number of at least 0"):
        model.plan(ds, price_per_million_requests=-1)


# -- Display -------------------------------------------------------------------------------------------


def test_text_and_html() -> None:
    ds = image((90, 70), ((45, 45), (70,)), steps=3)
    model = Model.from_function(recording, input_tile_size=32, input_overlap_size=4, output_bands=["p"])
    plan = model.plan(ds)
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in repr(plan).splitlines()[1:]}
    assert repr(plan).splitlines()[0] == "<xee_tf.PredictPlan function recording>"
    assert (
        lines["tiles"]
        == "9 = 3 rows × 3 columns of 32 × 32 px, given to the function with overlap as 40 × 40"
    )
    assert lines["raster"] == "70 × 90 px; EPSG:32633"
    assert lines["padded"] == "26 columns at the right, 6 rows at the bottom"
    assert lines["steps"] == "3 of time; each is predicted separately"
    assert lines["inputs"] == "pixels: float32 (?, 40, 40, 2)"
    assert lines["batches"] == "at most 3 of up to 655 tiles"
    assert lines["outputs"] == "p: float32 (time 3)"
    assert lines["skipped"].startswith("tiles in which all pixels are masked")
    assert " given to the function, about " in lines["bytes"]
    assert lines["bytes"].endswith(" returned")
    assert "at most" not in repr(model.plan(ds, skip_masked=False))
    html = plan._repr_html_()
    assert "9 tiles in 3 rows and 3 columns over a raster of 70 by 90 pixels" in html
    assert "one tile with its margin" in html
    assert "patch" not in html


def test_text_of_a_plan_of_pixels() -> None:
    model = Model.from_function(recording, unit="pixel", output_bands=["p"])
    shown = repr(model.plan(image((90, 70), ((45, 45), (70,))))).splitlines()
    assert [" ".join(line.split()) for line in shown[1:3]] == [
        "pixels 6,300",
        "raster 70 × 90 px; EPSG:32633",
    ]
    assert "px of" not in " ".join(shown)


def test_warning_about_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = image((90, 70), ((45, 45), (70,)))
    plan = Model.from_function(recording, input_tile_size=32, output_bands=["p"]).plan(ds)
    assert plan.warnings == ()
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": 10 << 20}))
    assert "may not fit in memory" in plan.warnings[0]
    assert "may not fit in memory" in repr(plan)
    assert math.isfinite(plan.peak_memory)
