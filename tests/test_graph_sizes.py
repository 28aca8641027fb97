"""What graphs hold: models once, and points and rows only in the tasks that need them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import xee_tf
from tests.optional import optional
from tests.rasters import raster
from xee_tf.connector import Connection, Connector, Signature

dd = optional("dask.dataframe")
keras = optional("keras")

LARGE = 100_000  # bytes; what several tasks hold must be smaller


def scene(rows: int, columns: int, side: int) -> xr.Dataset:
    """A lazy raster of square chunks."""
    band = np.broadcast_to(np.float32(1), (rows * side, columns * side))
    return raster({"a": band}).assign(a=(("y", "x"), da.ones(band.shape, "float32", chunks=side)))


def sizes(collection: Any) -> list[int]:
    """Return the sizes of the pickled tasks of a collection, as they are sent to workers."""
    (optimized,) = dask.optimize(collection)
    return [len(cloudpickle.dumps(task)) for task in dict(optimized.__dask_graph__()).values()]


class Weights:
    """A function with 4 MB of weights."""

    def __init__(self) -> None:
        self.weights = np.ones(500_000)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return values.sum(-1) * self.weights[0]


def test_image_of_a_thousand_chunks() -> None:
    model = xee_tf.Model.from_function(Weights(), input_tile_size=8, output_bands=["p"])
    model_bytes = len(cloudpickle.dumps(model))
    predicted = model.predict_image(scene(25, 40, 8), merge=False)
    found = sizes(predicted)
    assert sum(size > LARGE for size in found) == 1
    assert model_bytes < len(cloudpickle.dumps(predicted.__dask_graph__())) < model_bytes + 1000 * 500
    assert model_bytes < sum(found) < model_bytes + 1000 * 4000  # each task with its own overhead


def test_live_keras_model() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(8000), keras.layers.Dense(64)]
    live = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Reshape((8, 8, 1))])
    model = xee_tf.Model.from_keras(live, input_tile_size=8, output_bands=["p"])
    found = sizes(model.predict_image(scene(10, 10, 8), merge=False))
    assert sum(size > LARGE for size in found) == 1


@pytest.mark.parametrize("kind", ["frame", "dataset"])
def test_tables_of_many_chunks(kind: str) -> None:
    model = xee_tf.Model.from_function(Weights(), output_properties=["p"])
    if kind == "frame":
        table = dd.from_pandas(pd.DataFrame({"a": np.arange(100.0)}), npartitions=50)
    else:
        table = xr.Dataset({"a": ("row", da.arange(100.0, chunks=2))})
    predicted = model.predict_properties(table)
    found = sizes(predicted)
    assert len(found) >= 50
    assert sum(size > LARGE for size in found) == 1
    np.testing.assert_array_equal(predicted.compute()["p"], np.arange(100.0))


_loaded: list[int] = []  # of this process


@dataclass(frozen=True)
class Counted(Connector):
    """A model that counts how often it is unpickled and opened."""

    name: str = "counted"

    def __reduce__(self) -> Any:
        return _load, ()

    def open(self) -> Connection:
        return _CountedConnection()


def _load() -> Counted:
    _loaded.append(1)
    return Counted()


class _CountedConnection:
    signature = Signature()

    def predict(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"p": next(iter(batch.values()))[..., 0]}

    def close(self) -> None:
        pass


def _times() -> int:
    times = len(_loaded)
    _loaded.clear()
    return times


def test_workers_unpickle_a_model_once() -> None:
    model = xee_tf.Model.from_connector(
        Counted(), input_tile_size=8, output_bands=["p"], output_properties=["p"], input_name="x"
    )
    table = pd.DataFrame({"a": np.arange(100.0)})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for predicted in (
            model.predict_image(scene(10, 10, 8), merge=False),
            model.predict_properties(xr.Dataset.from_dataframe(table).chunk(index=1)),
        ):
            predicted.compute()
            times = client.run(_times)
            assert sum(times.values()) >= 1
            assert max(times.values()) <= 1


def test_points_of_a_sample(tmp_path: Path) -> None:
    """Each task gets the points in its block, and the last one the properties."""
    gpd = pytest.importorskip("geopandas")

    image, count, chunks = scene(10, 20, 50), 100_000, 200
    rng = np.random.default_rng(0)
    places = [rng.uniform(edges.min(), edges.max(), count) for edges in (image.x.values, image.y.values)]
    points = gpd.GeoDataFrame({"id": np.arange(count)}, geometry=gpd.points_from_xy(*places), crs=32633)
    found = sizes(image.tfexport.table(points, tmp_path / "points", compute=False))
    assert sum(size > LARGE for size in found) == 1  # 800 kB of properties
    assert sum(found) < count * (24 + 8) + 4 * chunks * 4000
    result = image.tfexport.table(points, tmp_path / "points")
    assert xee_tf.open_table(result.path)["id"].tolist() == list(range(count))


def test_polygons_of_a_sample(tmp_path: Path) -> None:
    """A large polygon in many blocks is in the graph once."""
    gpd = pytest.importorskip("geopandas")

    image = scene(10, 20, 8)
    middle = gpd.GeoSeries.from_xy([image.x.mean().item()], [image.y.mean().item()], crs=32633)
    circle = middle.buffer(1000, quad_segs=10_000)
    found = sizes(image.tfexport.table(circle, tmp_path / "circle", compute=False))
    assert sum(size > LARGE for size in found) == 1


@pytest.mark.parametrize("strings", [False, True], ids=["numbers", "strings"])
def test_row_groups_of_a_table(strings: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row group holds its own rows, and not the strings of others."""
    if strings:
        pytest.importorskip("pyarrow")
    monkeypatch.setattr("xee_tf.tables.export._TASK_BYTES", 50_000)
    numbers = np.arange(20_000)
    table = pd.DataFrame({"a": [f"name {number}" for number in numbers] if strings else numbers})
    written = []
    for folder in (tmp_path, f"memory://{tmp_path.name}"):
        found = sizes(xee_tf.export_table(table, f"{folder}/t", compute=False))
        assert len(found) > 10
        whole = 10 * len(table) + 16 * len(table) if strings else 8 * len(table)
        assert sum(found) < 1.2 * whole + len(found) * 4000
        written.append(xee_tf.export_table(table, f"{folder}/t"))
        assert xee_tf.open_table(written[-1].path)["a"].tolist() == table["a"].tolist()
    assert written[0].file.crc32c == written[1].file.crc32c
