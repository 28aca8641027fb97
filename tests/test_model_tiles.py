"""Tiles of any size with any overlap give the same result as the whole raster."""

from __future__ import annotations

import re
from ast import literal_eval
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rasters import random_band, raster
from tests.strategies import chunkings, examples, sizes
from tests.test_model_calling import FREE, fake_connector, tensors
from xee_tf import Model, OptionError, PredictionError

CALLS: list[int] = []

pytestmark = pytest.mark.usefixtures("small_blocks")


def neighbourhoods(band: npt.NDArray[Any], reach: tuple[int, int]) -> npt.NDArray[Any]:
    """Return the neighbourhoods (y, x, height, width) of all pixels, padded with zeros."""
    x, y = reach
    padded = np.pad(np.asarray(band, "f8"), ((y, y), (x, x)))
    windows: npt.NDArray[Any] = np.lib.stride_tricks.sliding_window_view(padded, (2 * y + 1, 2 * x + 1))
    return windows


class Weighted:
    """Weighted sums over neighbourhoods that lie inside the tile, with several forms of output."""

    def __init__(self, reach: tuple[int, int], form: str) -> None:
        self.reach, self.form = reach, form

    def __call__(self, tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
        CALLS.append(len(tiles))
        x, y = self.reach
        tiles = np.asarray(tiles[..., 0], "f8")
        around = np.lib.stride_tricks.sliding_window_view(tiles, (2 * y + 1, 2 * x + 1), (1, 2))
        total = (around * weights(self.reach)).sum((-2, -1))
        if self.form == "padded":
            return np.pad(total, ((0, 0), (y, y), (x, x)), constant_values=-1e9)
        if self.form == "rows":
            return total[:, 0, 0]
        if self.form == "classes":
            return np.stack([total[:, 0, 0], -total[:, 0, 0]], -1)
        if self.form == "tiles of classes":
            return np.stack([total, -total], -1)
        return total


def weights(reach: tuple[int, int]) -> npt.NDArray[Any]:
    x, y = reach
    return np.arange(1.0, 1 + (2 * x + 1) * (2 * y + 1)).reshape(2 * y + 1, 2 * x + 1)


@examples(50)
@given(
    shape=sizes(2, 9),
    tile=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    reach=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    form=st.sampled_from(["plain", "padded", "rows", "classes", "tiles of classes"]),
    batch_size=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_tiles_equal_the_whole_raster_for_any_overlap(
    shape: Any, tile: Any, reach: Any, form: str, batch_size: Any, seed: int, data: st.DataObject
) -> None:
    if form in ("rows", "classes"):
        tile = (1, 1)
    band = random_band(shape.shape, seed=seed)
    band[np.random.default_rng(seed).random(shape.shape) < 0.1] = np.nan
    ds = raster({"a": band}).chunk(y=data.draw(chunkings(shape.y)), x=data.draw(chunkings(shape.x)))
    declared = {"type": "float64", "shape": [2]} if "classes" in form else "float64"
    model = Model.from_function(
        Weighted(reach, form), input_tile_size=tile, input_overlap_size=reach, output_bands={"p": declared}
    )
    found = model.predict_image(ds, merge=False, batch_size=batch_size).p.compute(scheduler="sync").values
    wanted = (neighbourhoods(np.nan_to_num(band), reach) * weights(reach)).sum((-2, -1))
    wanted = np.where(np.isnan(band), np.nan, wanted)
    np.testing.assert_array_equal(found, np.stack([wanted, -wanted]) if "classes" in form else wanted)


@examples(30)
@given(
    shape=sizes(2, 9),
    side=st.integers(1, 4),
    overlap=st.integers(1, 9),
    batch_size=st.sampled_from([None, 2]),
    vector=st.booleans(),
    data=st.data(),
)
def test_blending_of_tiles_that_overlap_several_tiles(
    shape: Any, side: int, overlap: int, batch_size: Any, vector: bool, data: st.DataObject
) -> None:
    """The prediction of a tile is its mean; each pixel is the weighted mean of all tiles that contain it."""
    band = random_band(shape.shape)

    def mean(tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
        values = np.broadcast_to(tiles.mean((1, 2, 3))[:, None, None], tiles.shape[:3])
        return np.stack([values, -values], -1) if vector else values

    model = Model.from_function(
        mean,
        input_tile_size=side,
        input_overlap_size=overlap,
        output_bands={"p": {"type": "float64", "shape": [2]} if vector else "float64"},
    )
    ds = raster({"a": band}).chunk(y=data.draw(chunkings(shape.y)), x=data.draw(chunkings(shape.x)))
    found = model.predict_image(ds, merge=False, blend="hann", batch_size=batch_size).p
    length = side + 2 * overlap
    rise = np.sin(np.minimum((np.arange(length) + 0.5) / (2 * overlap), 1) * np.pi / 2) ** 2
    window = np.outer(rise * rise[::-1], rise * rise[::-1])
    rows, columns = -(-shape.y // side), -(-shape.x // side)
    padded = np.zeros((rows * side + 2 * overlap, columns * side + 2 * overlap))
    padded[overlap : overlap + shape.y, overlap : overlap + shape.x] = band
    total, weight = np.zeros_like(padded), np.zeros_like(padded)
    for row, column in np.ndindex(rows, columns):
        at = np.s_[row * side : row * side + length, column * side : column * side + length]
        total[at] += window * padded[at].mean()
        weight[at] += window
    inner = np.s_[overlap : overlap + shape.y, overlap : overlap + shape.x]
    wanted = total[inner] / weight[inner]
    wanted = np.stack([wanted, -wanted]) if vector else wanted
    np.testing.assert_allclose(found.compute(scheduler="sync"), wanted, rtol=1e-4)


def test_sizes_from_earth_engine_examples() -> None:
    """Tiles of 128 pixels with an overlap of 125 pixels, and with an overlap larger than the tile."""
    band = random_band((300, 280))
    for overlap in (125, 128, 200):
        model = Model.from_function(
            lambda tiles: tiles[..., 0], input_tile_size=128, input_overlap_size=overlap, output_bands=["p"]
        )
        for blend in ("crop", "hann"):
            found = model.predict_image(raster({"a": band}).chunk(y=100), merge=False, blend=blend).p
            np.testing.assert_allclose(found, band, rtol=1e-5)


def test_symmetries_of_small_tiles() -> None:
    band = random_band((6, 5))
    model = Model.from_function(
        lambda tiles: tiles[:, 1, 0, 0], input_tile_size=1, input_overlap_size=1, output_bands=["p"]
    )
    result = model.predict_image(raster({"a": band}), merge=False, augment="d4")
    left, right, up, down = (
        np.pad(band, 1)[at] for at in (np.s_[1:-1, :-2], np.s_[1:-1, 2:], np.s_[:-2, 1:-1], np.s_[2:, 1:-1])
    )
    np.testing.assert_allclose(result.p, np.mean([left, right, up, down], 0), rtol=1e-6)


def test_spread_requires_an_unused_name() -> None:
    model = Model.from_function(lambda tiles: tiles, input_tile_size=2, output_bands=["p", "p_spread"])
    image = raster({"a": random_band((4, 4))})
    with pytest.raises(OptionError, match=r"Two outputs would be named 'p_spread'.*output_bands"):
        model.predict_image(image, augment="d4")
    vector = Model.from_function(
        lambda tiles: tiles.repeat(2, -1), input_tile_size=2, output_bands={"p": {"shape": [2]}}
    )
    found = vector.predict_image(image, merge=False, augment="d4")
    assert {name: band.dims[0] for name, band in found.items()} == {"p": "p_0", "p_spread": "p_spread_0"}


def test_tile_sizes_from_the_signature() -> None:
    band = random_band((7, 9))
    for outputs, predict in (
        ((None, 2), lambda x: x[:, 1, 1, [0, 0]]),
        ((None, 1, 1, 2), lambda x: x[:, 1:2, 1:2, [0, 0]]),
        ((None, 3, 3, 2), lambda x: x[..., [0, 0]]),
        ((*FREE, 2), lambda x: x[:, 1:2, 1:2, [0, 0]]),
    ):
        connector = fake_connector(
            tensors(x=(None, 3, 3, 1)),
            tensors(p=outputs),
            lambda batch, predict=predict: {"p": predict(batch["x"])},
        )
        result = Model(connector, input_overlap_size=1).predict_image(raster({"a": band}), merge=False)
        np.testing.assert_array_equal(result.p, [band, band])
    with pytest.raises(OptionError, match=r"3 x 3 pixels.*\(2, 2\).*leaves no pixels.*half a tile"):
        Model(connector, input_overlap_size=2).predict_image(raster({"a": band}))


@pytest.mark.parametrize("blend", ["crop", "hann"])
def test_small_tiles_are_sent_in_large_batches(monkeypatch: pytest.MonkeyPatch, blend: Any) -> None:
    monkeypatch.undo()  # the default block size
    CALLS.clear()
    band = random_band((256, 256))
    model = Model.from_function(
        Weighted((1, 1), "padded"), input_tile_size=1, input_overlap_size=1, output_bands=["p"]
    )
    model.predict_image(raster({"a": band}), merge=False, blend=blend).p.compute(scheduler="sync")
    assert sum(CALLS) == band.size
    assert len(CALLS) <= 10


@pytest.mark.parametrize(
    ("size", "fix"),
    [
        (20, r"input_tile_size=\(20, 20\) and input_overlap_size=\(2, 2\) if its conv"),
        (19, "Pass output_tile"),
    ],
)
def test_convolutions_that_leave_out_margins(size: int, fix: str) -> None:
    keras = pytest.importorskip("keras")
    layers = [keras.Input((24, 24, 1)), keras.layers.Conv2D(1, 25 - size)]
    model = Model.from_keras(keras.Sequential(layers), bands=["B4"])
    with pytest.raises(OptionError, match=f"tiles of {size} x {size} pixels for tiles of 24 x 24 .*{fix}"):
        model.predict_image(raster({"B4": random_band((48, 48), "float32")}))


@pytest.mark.parametrize("reach", [(2, 2), (3, 1)])
def test_error_of_a_network_without_padding_names_the_overlap(reach: tuple[int, int]) -> None:
    image = raster({"a": random_band((30, 40))})

    def predicted(overlap: Any) -> Any:
        model = Model.from_function(
            Weighted(reach, "valid"), input_tile_size=16, input_overlap_size=overlap, output_bands=["b"]
        )
        return model.predict_image(image, merge=False)["b"].to_numpy()

    with pytest.raises(PredictionError) as error:
        predicted(0)
    [found] = re.findall(r"pass input_overlap_size=(\d+|\(\d+, \d+\))\. Fix", str(error.value))
    named = literal_eval(found)
    assert named == (reach if reach[0] != reach[1] else reach[0])
    expected = (neighbourhoods(image["a"], reach) * weights(reach)).sum((-2, -1))
    np.testing.assert_allclose(predicted(named), expected, rtol=1e-6)
    assert "input_overlap_size" not in halved(image)


def halved(image: Any) -> str:
    """Return the error of a model that returns half of the resolution."""
    model = Model.from_function(
        lambda tiles: tiles[:, ::2, ::2], bands=["a"], input_tile_size=16, output_bands=["b"]
    )
    with pytest.raises(PredictionError) as error:
        model.predict_image(image, merge=False).compute()
    return str(error.value)
