"""Predictions for tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.fractional_cover import (
    BANDS,
    COVER,
    REFLECTANCE,
    TfliteNetwork,
    as_saved_model,
    interpreter_of,
    network_path,
    sites_path,
)
from tests.optional import optional
from tests.test_model_calling import fake_connector, tensors
from xee_tf.errors import ChunkError, OptionError, PredictionError
from xee_tf.model import Model

dd = optional("dask.dataframe")
gpd = optional("geopandas")

COVERS = ("bare_cover", "green_cover", "other_cover")  # the table has a column "bare"


@pytest.fixture(scope="module")
def sites(data_dir: Path) -> pd.DataFrame:
    """Field sites in Australia: reflectances b2 to b7 and the observed cover."""
    return pd.read_json(sites_path(data_dir))


@pytest.fixture(scope="module")
def cover_model(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A published network as a SavedModel with one input (n, 5)."""
    path = as_saved_model(network_path(data_dir), tmp_path_factory.mktemp("cover") / "model")
    return Model.from_saved_model(path, inputProperties=list(BANDS), output_properties=list(COVERS))


@pytest.fixture(scope="module")
def expected(data_dir: Path, sites: pd.DataFrame) -> np.ndarray:
    """Predictions of TensorFlow Lite, row by row."""
    interpreter = interpreter_of(network_path(data_dir))
    interpreter.allocate_tensors()
    (into,), (out) = interpreter.get_input_details(), interpreter.get_output_details()[0]
    predicted = []
    for row in sites[list(BANDS)].to_numpy("float32"):
        interpreter.set_tensor(into["index"], row[None])
        interpreter.invoke()
        predicted.append(interpreter.get_tensor(out["index"])[0])
    return np.array(predicted)


def columns(frame: Any, names: Any = COVERS) -> np.ndarray:
    return np.stack([np.asarray(frame[name]) for name in names], -1)


def test_published_reference_values(cover_model: Model, data_dir: Path) -> None:
    row = pd.DataFrame(REFLECTANCE, columns=list(BANDS))
    np.testing.assert_allclose(columns(cover_model.predict_properties(row)), COVER, atol=5e-5)
    lite = Model.from_function(
        TfliteNetwork(network_path(data_dir)), input_properties=BANDS, output_properties=COVERS
    )
    np.testing.assert_allclose(columns(lite.predict_properties(row)), COVER, atol=5e-5)


def test_real_table(cover_model: Model, sites: pd.DataFrame, expected: np.ndarray) -> None:
    found = cover_model.predictProperties(sites)
    assert list(found.columns) == [*sites.columns, *COVERS]
    pd.testing.assert_frame_equal(found[sites.columns], sites)
    assert all(found[name].dtype == np.float32 for name in COVERS)
    np.testing.assert_allclose(columns(found), expected, atol=2e-6)
    # It was trained on such sites, so that its predictions agree with the observations.
    for cover, observed in zip(COVERS, ("bare", "pv", "npv"), strict=True):
        assert np.corrcoef(found[cover], sites[observed])[0, 1] > 0.8
    batches = cover_model.predict_properties(sites, batch_size=1000)
    np.testing.assert_allclose(columns(batches), expected, atol=2e-6)


def test_all_kinds_of_tables(cover_model: Model, sites: pd.DataFrame, expected: np.ndarray) -> None:
    some = sites.iloc[:200].set_index(pd.Index(np.arange(200) * 3, name="site"))
    plain = cover_model.predict_properties(some)
    np.testing.assert_allclose(columns(plain), expected[:200], atol=2e-6)

    points = gpd.GeoDataFrame(some, geometry=gpd.points_from_xy(some["b2"], some["b3"]), crs=4326)
    geo = cover_model.predict_properties(points)
    assert isinstance(geo, gpd.GeoDataFrame)
    assert geo.crs == points.crs
    pd.testing.assert_frame_equal(pd.DataFrame(geo.drop(columns="geometry")), plain)

    lazy = cover_model.predict_properties(dd.from_pandas(some, npartitions=7))
    assert list(lazy.columns) == list(plain.columns)
    pd.testing.assert_frame_equal(lazy.compute(), plain)

    dataset = some.to_xarray()
    found = cover_model.predict_properties(dataset)
    np.testing.assert_array_equal(columns(found), columns(plain))
    assert found["bare_cover"].dims == ("site",)
    chunked = cover_model.predict_properties(dataset.chunk(site=33))
    assert chunked["bare_cover"].chunks == ((33,) * 6 + (2,),)
    np.testing.assert_allclose(columns(chunked), columns(plain), atol=2e-6)


def test_lazy_tables() -> None:
    def fail(rows: np.ndarray) -> np.ndarray:
        raise RuntimeError("called")

    model = Model.from_function(fail, output_properties={"p": "float32", "q": {"type": "int8", "shape": [2]}})
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    lazy = model.predict_properties(dd.from_pandas(frame, npartitions=2))
    assert lazy.dtypes["p"] == np.float32
    dataset = model.predict_properties(xr.Dataset({"a": ("row", [1.0, 2.0])}).chunk(row=1))
    assert dataset["q"].shape == (2, 2)
    assert dataset["q"].dtype == np.int8
    for result in (lazy, dataset):
        with pytest.raises(PredictionError, match="RuntimeError: called"):
            result.compute()


@pytest.mark.parametrize("rows", [(5, 11), (5, 12), (8,)])
def test_chunks_with_other_rows_than_declared(rows: tuple[int, ...]) -> None:
    """Rows would be combined with those of another column, without an error."""
    values, sizes = np.arange(16.0), list(rows)

    def load(block_info: Any = None) -> np.ndarray:
        (number,) = block_info[None]["chunk-location"]
        start = sum(sizes[:number])
        return values[start : start + sizes[number]] if number < len(sizes) else values[:0]

    wrong = da.map_blocks(load, chunks=((8, 8),), dtype="f8", meta=np.empty(0))
    table = xr.Dataset({"a": ("row", wrong), "b": ("row", da.from_array(values, chunks=8))})
    model = Model.from_function(lambda batch: batch["a"] - batch["b"], named=True, output_properties=["p"])
    with pytest.raises(ChunkError, match=r"Column 'a': chunk \([01],\), with row \d+ to \d+, has the shape"):
        model.predict_properties(table).compute()


def all_types(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of strings, booleans, arrays and numbers from inputs of the same types."""
    names = [f"{name}!" for name in batch["name"].tolist()]
    return {
        "loud": np.array(names, object),
        "dry": ~batch["wet"],
        "turned": batch["profile"][:, ::-1],
        "twice": 2 * batch["age"],
    }


OUTPUTS = {
    "loud": "string",
    "dry": "bool",
    "turned": {"type": "float", "shape": [3]},
    "twice": {"type": {"type": "PixelType", "precision": "int", "min": 0, "max": 100}},
}


@pytest.fixture
def mixed() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": ["oak", "fir", None, "ölweide"],
            "wet": [True, False, True, False],
            "profile": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0], [0.0, 0.0, 1.0]],
            "age": [3, 70, 5, 1],
            "when": pd.date_range("2024-01-01", periods=4),
        },
        index=[4, 3, 2, 2],
    )


def test_strings_booleans_and_arrays(mixed: pd.DataFrame) -> None:
    pytest.importorskip("pyarrow")
    model = Model.from_function(
        all_types, named=True, input_properties=["name", "wet", "profile", "age"], output_properties=OUTPUTS
    )
    found = model.predict_properties(mixed)
    assert found["loud"].tolist() == ["oak!", "fir!", "!", "ölweide!"]
    assert found["dry"].tolist() == [False, True, False, True]
    assert found["dry"].dtype == bool
    assert [row.tolist() for row in found["turned"]] == [[3, 2, 1], [6, 5, 4], [9, 8, 7], [1, 0, 0]]
    assert found["twice"].tolist() == [6, 140, 10, 2]
    assert found["twice"].dtype == np.uint8
    assert found.index.tolist() == [4, 3, 2, 2]
    with dask.config.set({"dataframe.convert-string": False}):  # it would convert arrays to strings
        partitions = dd.from_pandas(mixed.reset_index(drop=True), npartitions=2)
    lazy = model.predict_properties(partitions).compute()
    assert lazy["loud"].tolist() == found["loud"].tolist()
    assert [row.tolist() for row in lazy["turned"]] == [row.tolist() for row in found["turned"]]
    dataset = xr.Dataset(
        {
            "name": ("row", np.array(["oak", "fir"], object)),
            "wet": ("row", [True, False]),
            "profile": (("row", "depth"), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
            "age": ("row", [3, 70]),
        }
    )
    rows = model.predict_properties(dataset)
    assert rows["turned"].dims == ("row", "turned_0")
    assert rows["turned"].values.tolist() == [[3, 2, 1], [6, 5, 4]]
    assert rows["loud"].values.tolist() == ["oak!", "fir!"]


def test_strings_of_a_saved_model(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    module = tf.Module()
    spec = tf.TensorSpec((None, 1), tf.string, "name")
    module.call = tf.function(lambda name: {"upper": tf.strings.upper(name)}, input_signature=[spec])
    tf.saved_model.save(module, tmp_path, signatures=module.call)
    model = Model.from_saved_model(tmp_path)
    found = model.predict_properties(pd.DataFrame({"other": [1, 2], "name": ["oak", "fir"]}))
    assert found["upper"].tolist() == ["OAK", "FIR"]
    assert found["upper"].dtype == pd.Series(["x"], dtype="str").dtype


def test_empty_tables(cover_model: Model, sites: pd.DataFrame) -> None:
    found = cover_model.predict_properties(sites.iloc[:0])
    assert len(found) == 0
    assert found["green_cover"].dtype == np.float32


@pytest.mark.parametrize(
    ("options", "table", "message"),
    [
        ({"input_properties": ["a", "z"]}, {"a": [1.0]}, "needs 'z', not found in the table.*columns 'a'"),
        ({"inputs": {"z": "pixels"}}, {"a": [1.0]}, "needs 'z', not found"),
        ({}, {"p": [1.0]}, r"already has the columns 'p'"),
        ({}, {"a": ["oak"], "b": [1.0]}, "strings.*numbers"),
        ({"input_properties": ["a"]}, {"a": pd.date_range("2024-01-01", periods=1)}, "'a'.*datetime"),
        ({"output_properties": None}, {"a": [1.0]}, "outputs of function sum are unknown.*output_properties"),
    ],
)
def test_tables_that_do_not_match_the_model(
    options: dict[str, Any], table: dict[str, Any], message: str
) -> None:
    pytest.importorskip("pyarrow")
    model = Model.from_function(np.sum, **{"output_properties": ["p"], **options})
    with pytest.raises(OptionError, match=message):
        model.predict_properties(pd.DataFrame(table))


def test_other_objects_than_tables(cover_model: Model, sites: pd.DataFrame) -> None:
    for wrong in (sites["b2"], {"b2": [1]}, np.zeros((3, 5))):
        with pytest.raises(OptionError, match="table must be a"):
            cover_model.predict_properties(wrong)
    with pytest.raises(OptionError, match="batch_size"):
        cover_model.predict_properties(sites, batch_size=0)
    with pytest.raises(OptionError, match=r"takes 5 channels.*input_properties"):
        Model.from_connector(cover_model.connector).predict_properties(sites)


def test_repeated_column() -> None:
    model = Model.from_function(lambda rows: rows[:, 0], output_properties=["p"])
    table = pd.DataFrame([[1.0, 2.0, 3.0]], columns=["nir", "red", "nir"])
    for given in (table, dd.from_pandas(table, npartitions=1)):
        with pytest.raises(OptionError, match=r"columns 'nir' appear more than once.*duplicated"):
            model.predict_properties(given)
    kept = Model.from_function(lambda rows: rows[:, 0], input_properties=["red"], output_properties=["p"])
    assert kept.predict_properties(table)["p"].tolist() == [2.0]


def test_complex_output_in_the_signature_is_an_error() -> None:
    connector = fake_connector(tensors(x=(None, 1)), tensors(p=("complex64", (None,))))
    with pytest.raises(OptionError, match="'p' has dtype complex64; expected a boolean, integer, float"):
        Model(connector).predict_properties(pd.DataFrame({"a": [1.0]}))


def test_types_of_missing_columns() -> None:
    model = Model.from_function(
        lambda rows: rows[:, 0], output_properties=["p"], input_type_override={"swir1": "float"}
    )
    with pytest.raises(OptionError, match=r"'swir1', not found in the table.*Did you mean 'swir'"):
        model.predict_properties(pd.DataFrame({"swir": [1.0], "red": [2.0]}))
