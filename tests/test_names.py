"""Tests of names: an accepted name is restored exactly, and others raise an error that contains it."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import xee_tf
from tests.optional import optional
from tests.rasters import random_band, raster
from tests.strategies import examples
from xee_tf.labels import file_labels, label_steps
from xee_tf.names import check_zarr
from xee_tf.storage import Location

cftime = optional("cftime")
gpd = optional("geopandas")

SHAPE = (6, 8)
BAND = random_band(SHAPE)

# Common names, names with a meaning in stores, and arbitrary names.
NAMES = (
    st.sampled_from(
        ["B4", "ndvi mean", "a/b", "dense/Softmax:0", ".", "..", "...", "__class", "zarr.json", "é"]
    )
    | st.sampled_from(
        ["x", "y", "spatial_ref", "time", "fid", "FID", "geom", "geometry", "Longitude", "patch"]
    )
    | st.sampled_from(
        ["", " B4", "B4 ", "a\\b", "a\x00b", "a\x01", "a\nb", "\ud800", "<B4>", "a&b", "x" * 256]
    )
    | st.text(max_size=12)
)
properties = settings(examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])


def scene(**bands: Any) -> xr.Dataset:
    return raster({"B1": BAND, **bands}).rio.write_crs(32633)


def model(*names: str, **options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_function(
        lambda tile: tile[..., 0], input_tile_size=8, output_bands=names, **options
    )


def result_or_none(name: str, call: Callable[[], Any]) -> Any:
    """Return the result of a call, or None if it raises an error, which must contain the name."""
    try:
        return call()
    except xee_tf.OptionError as error:
        message = str(error)
    assert repr(name) in message or "differs from" in message
    return None


# -- Any name, in any store -----------------------------------------------------------------------------


@properties
@given(name=NAMES)
def test_round_trip_of_bands_in_records(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    prefix = tmp_path_factory.mktemp("records") / "scene"
    ds = raster({"B1": BAND}).rename(x="lon", y="lat").rename(B1=name).assign_attrs(crs="EPSG:4326")
    result = result_or_none(name, lambda: ds.tfexport(prefix, patch_dimensions=2))
    if result is None:
        assert not list(prefix.parent.iterdir())
        return
    opened = xee_tf.open_image(result.mixer)
    assert list(opened) == [name]
    np.testing.assert_array_equal(opened[name], BAND)


@properties
@given(name=NAMES)
@example(name="a/b")
def test_round_trip_of_outputs_in_zarr(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = tmp_path_factory.mktemp("zarr") / "predicted.zarr"
    if result_or_none(name, lambda: xee_tf.predict_to_zarr(model(name), scene(), store)) is None:
        assert not list(store.parent.iterdir())
        return
    found = xr.open_zarr(store, consolidated=False, decode_coords="all")
    assert list(found) == [name]
    np.testing.assert_array_equal(found[name], BAND)


@properties
@given(name=NAMES)
@example(name=" B4")
def test_round_trip_of_bands_in_a_geotiff(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tif")
    mixer = xee_tf.Mixer("EPSG:32633", rasterio.Affine(30, 0, 7e5, 0, -30, 5e6), xee_tf.Size(x=4, y=3), 2, 4)

    def write() -> Any:
        with xee_tf.PredictionWriter(folder / "predicted.tfrecord", mixer, bands=[name]) as writer:
            writer.write(np.ones((4, 3, 4), "f4"))
        return xee_tf.upload_image(folder / "predicted.tfrecord", mixer, folder / "map.tif")

    written = result_or_none(name, write)
    if written is None:
        assert not (folder / "map.tif").exists()
        return
    with rasterio.open(written.path) as file:
        assert file.descriptions == (name,)


@properties
@given(name=NAMES, ending=st.sampled_from([".gpkg", ".parquet"]))
@example(name="\ud800", ending=".gpkg")
@example(name="fid", ending=".gpkg")
@example(name="Latitude", ending=".gpkg")
@example(name="geometry", ending=".parquet")
def test_round_trip_of_columns_in_files(
    name: str, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("geopandas")
    folder = tmp_path_factory.mktemp("table")
    columns = pd.Index(["longitude", "latitude", name], dtype=object)  # text in pandas is UTF-8
    frame = pd.DataFrame([[1.0, 3.0, 5.5], [2.0, 4.0, 7.0]], columns=columns)

    def write() -> Any:
        table = xee_tf.export_table(frame, folder / "sites")
        return xee_tf.upload_table(table.path, folder / f"sites{ending}")

    written = result_or_none(name, write)
    if written is None:
        assert not (folder / f"sites{ending}").exists()
        return
    read = gpd.read_file if ending == ".gpkg" else gpd.read_parquet
    found = read(written.path)
    assert list(found) == [*frame, "geometry"]
    assert found[name].tolist() == frame[name].tolist()


@properties
@given(name=NAMES, merge=st.booleans())
def test_outputs_are_added_to_the_variables_of_an_image(name: str, merge: bool) -> None:
    image = scene(B2=BAND).expand_dims(time=2).assign_coords(season=("time", [3, 6]))
    found = result_or_none(name, lambda: model(name, bands=["B1"]).predict_image(image, merge=merge))
    if found is None:
        return
    assert list(found) == ([*image, name] if merge else [name])
    assert {"x", "y", "spatial_ref", "season"} <= set(found.coords)
    np.testing.assert_array_equal(found[name].isel(time=1), BAND)


@properties
@given(name=NAMES, lazy=st.booleans())
def test_outputs_are_added_to_the_columns_of_a_table(name: str, lazy: bool) -> None:
    table = xr.Dataset({"a": ("row", [1.0, 2.0])}, {"row": [7, 8], "site": ("row", ["p", "q"]), "k": 5})

    def predict() -> Any:
        rows = xee_tf.Model.from_function(
            lambda columns: {name: columns["a"], "zz": columns["a"]},
            named=True,
            input_properties=["a"],
            output_properties=[name, "zz"] if name != "zz" else ["zz"],
        )
        return rows.predict_properties(table.chunk(row=1) if lazy else table)

    found = result_or_none(name, predict)
    if found is None:
        return
    assert set(found.coords) == set(table.coords)
    assert found[name].values.tolist() == [1.0, 2.0]


# -- One by one -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "xc",
        "yc",
        "open-tfrecord",
        "read-tfrecord",
        "turn",
        "sources",
        "xee-tf-predict",
        "xee-tf-predict-turn",
    ],
)
def test_names_that_xee_tf_itself_uses(name: str, tmp_path: Any) -> None:
    """Names of coordinates of rotated rasters, and of layers of graphs."""
    image = scene().rename(B1=name).assign(other=scene()["B1"] + 1)
    result = image.tfexport(tmp_path / "scene", patch_dimensions=2)
    xr.testing.assert_equal(
        xee_tf.open_image(result.mixer)[[name, "other"]].drop_vars("spatial_ref").load(),
        image.drop_vars("spatial_ref").astype("f4"),
    )
    found = model(name).predict_image(image, merge=False)
    np.testing.assert_array_equal(found[name], BAND)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("name", ["x", "y", "spatial_ref", "time", "season"])
def test_an_output_never_replaces_a_coordinate(name: str, merge: bool) -> None:
    image = scene().expand_dims(time=2).assign_coords(season=("time", [3, 6]))
    with pytest.raises(xee_tf.OptionError, match=f"output '{name}' cannot be a variable.*output_bands"):
        model(name).predict_image(image, merge=merge)


def test_an_output_may_have_the_name_of_an_unused_dimension() -> None:
    image = raster({"B1": BAND}).rename(x="lon", y="lat").assign_attrs(crs="EPSG:4326")
    found = model("x").predict_image(image, merge=False)
    assert found["x"].dims == ("lat", "lon")
    np.testing.assert_array_equal(found["x"], BAND)


def vectors(**outputs: Any) -> xee_tf.Model:
    return xee_tf.Model.from_function(lambda tiles: tiles, input_tile_size=8, output_bands=outputs)


VECTOR = {"type": "float", "shape": [2]}


def test_dimensions_of_outputs_do_not_collide() -> None:
    twins = vectors(p=VECTOR, p_0="float32")
    with pytest.raises(xee_tf.OptionError, match="'p_0' cannot be a variable: 'p' has a dimension"):
        twins.predict_image(scene(), merge=False)
    with pytest.raises(xee_tf.OptionError, match="'p' has a dimension 'p_0', but the image has a band"):
        vectors(p=VECTOR).predict_image(scene(p_0=BAND))
    with pytest.raises(xee_tf.OptionError, match="'p' has a dimension 'p_0', a name that the raster's own"):
        vectors(p=VECTOR).predict_image(scene().expand_dims(p_0=2), merge=False)


def test_the_spread_of_an_output_is_an_output() -> None:
    with pytest.raises(xee_tf.OptionError, match="Two outputs would be named 'p_spread'"):
        model("p", "p_spread").predict_image(scene(), merge=False, augment="d4")


def test_an_existing_store_is_unchanged(tmp_path: Any) -> None:
    result = scene().rename(B1="a/b").tfexport(tmp_path / "scene", patch_dimensions=2)
    store = tmp_path / "old.zarr"
    xee_tf.predict_to_zarr(model("kept"), scene(), store)
    before = xr.open_zarr(store, consolidated=False).kept.values
    with pytest.raises(xee_tf.OptionError, match=r"'a/b' cannot be stored in Zarr.*bands=.*write a .tif"):
        xee_tf.upload_image(None, result.mixer, store, if_exists="overwrite")
    with pytest.raises(xee_tf.OptionError, match=r"'a/b' cannot be stored in Zarr.*output_bands"):
        xee_tf.predict_to_zarr(model("a/b"), scene(), store, if_exists="overwrite")
    np.testing.assert_array_equal(xr.open_zarr(store, consolidated=False).kept, before)
    assert not list(tmp_path.glob("*.replacement"))
    tif = xee_tf.upload_image(None, result.mixer, tmp_path / "map.tif")
    with rasterio.open(tif.path) as file:
        assert file.descriptions == ("a/b",)


@pytest.mark.parametrize("dim", ["patch", "row", "column", "left", "step", "a/b", "é"])
def test_round_trip_of_dimensions_of_array_bands(dim: str, tmp_path: Any) -> None:
    cube = scene().expand_dims({dim: [3, 5]})
    result = cube.tfexport(tmp_path / "cube", patch_dimensions=2)
    opened = xee_tf.open_image(result.mixer)
    assert opened["B1"].dims == (dim, "y", "x")
    assert opened[dim].values.tolist() == [3, 5]
    np.testing.assert_array_equal(opened["B1"], cube["B1"])
    if dim in ("patch", "row", "column", "left"):
        with pytest.raises(xee_tf.OptionError, match=f"dimension '{dim}'.*margins='trim'"):
            xee_tf.open_image(result.mixer, margins="keep")


@pytest.mark.parametrize("name", ["x", "y", "spatial_ref"])
def test_an_export_that_could_not_be_read_raises(name: str, tmp_path: Any) -> None:
    ds = raster({"B1": BAND}).rename(x="lon", y="lat").assign_attrs(crs="EPSG:4326")
    with pytest.raises(xee_tf.OptionError, match=f"band '{name}'.*Rename it"):
        ds.rename(B1=name).tfexport(tmp_path / "scene", patch_dimensions=2)
    with pytest.raises(xee_tf.OptionError, match=f"dimension '{name}'.*Rename it"):
        ds.expand_dims({name: 2}).tfexport(tmp_path / "scene", patch_dimensions=2)
    assert not list(tmp_path.iterdir())


def test_names_that_differ_in_case_on_case_insensitive_file_systems(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, remote = Location(str(tmp_path / "a.zarr")), Location("memory://a.zarr")
    for platform, refused in (("linux", []), ("darwin", ["ndvi"]), ("win32", ["ndvi", "a:b", "CON", "end."])):
        monkeypatch.setattr(sys, "platform", platform)
        for name in ("ndvi", "a:b", "CON", "end."):
            check_zarr(["NDVI", name], remote, "")
            if name not in refused:
                check_zarr(["NDVI", name], local, "")
                continue
            with pytest.raises(xee_tf.OptionError, match=repr(name)):
                check_zarr(["NDVI", name], local, "")


def test_names_of_predictions_are_checked_before_a_file_is_created(tmp_path: Any) -> None:
    mixer = xee_tf.Mixer("EPSG:32633", rasterio.Affine(30, 0, 7e5, 0, -30, 5e6), xee_tf.Size(x=4, y=3), 2, 4)
    for bands, message in ((["a", "a"], "'a' more than once"), ([""], "empty"), ([3], r"got \[3\]")):
        with pytest.raises(xee_tf.OptionError, match=message):
            xee_tf.PredictionWriter(tmp_path / "p.tfrecord", mixer, bands=bands)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_frame_keeps_its_geometry() -> None:
    rows = xee_tf.Model.from_function(
        lambda row: row[:, 0], input_properties=["a"], output_properties=["geometry"]
    )
    frame = gpd.GeoDataFrame({"a": [1.0]}, geometry=gpd.points_from_xy([1], [2]))
    with pytest.raises(xee_tf.OptionError, match="'geometry'"):
        rows.predict_properties(frame)


# -- Steps that become files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(["2021-03-01", "2021-04-01"], "datetime64[ns]"), ["20210301", "20210401"]),
        (np.array(["2021-03-01T06", "2021-03-01T18"], "M8[ns]"), ["20210301T060000", "20210301T180000"]),
        (np.array(["2021-03-01", "2021-03-01"], "datetime64[ns]"), ["20210301_00000", "20210301_00001"]),
        (np.array(["2021-03-01", "NaT", "NaT"], "M8[ns]"), ["20210301_00000", "NaT_00001", "NaT_00002"]),
        (np.array([1, 2], "timedelta64[D]"), ["1-days-00-00-00", "2-days-00-00-00"]),
        (np.array([datetime.date(2000, 2, 28), datetime.date(2000, 3, 1)]), ["20000228", "20000301"]),
        (np.array([pd.Timestamp(2000, 2, 3, h) for h in (6, 12)]), ["20000203T060000", "20000203T120000"]),
        (np.array(pd.period_range("2020-01", periods=2, freq="M"), object), ["2020-01", "2020-02"]),
        (np.array(["VV", "VH"]), ["VV", "VH"]),
        (np.array(["VV", "vv"]), ["00000", "00001"]),
        (np.array(["straße", "STRASSE"]), ["00000", "00001"]),
        (np.array(["a/b", "a\\b"]), ["00000", "00001"]),
        (np.array(["../up", "down"]), ["..-up", "down"]),
        (np.array(["", "b"], object), ["00000", "00001"]),
        (np.array(["x" * 300, "b"]), ["00000", "00001"]),
        (np.array([0.45, -1.5]), ["0.45", "-1.5"]),
        (np.array([np.nan, np.nan]), ["00000", "00001"]),
        (np.array([("a", 1), ("a", 2), None], object)[:2], ["a_1", "a_2"]),
        (np.array([b"VV", b"VH"]), ["VV", "VH"]),
        (np.array([b"a b", "straße".encode()], object), ["a-b", "straße"]),
        (np.array([0.45, 0.9], "float32"), ["0.45", "0.9"]),
        (np.array([datetime.time(6), datetime.time(18)]), ["06-00-00", "18-00-00"]),
        (np.array([datetime.date(2000, 2, 28)] * 2), ["20000228_00000", "20000228_00001"]),
        (None, ["00000", "00001"]),
    ],
)  # fmt: skip
def test_labels_of_steps(values: Any, expected: list[str]) -> None:
    assert file_labels(values, len(expected)) == expected


NO_LEAP = cftime.DatetimeNoLeap


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(["2021-03-01", "2021-04-01"], "datetime64[ns]"), ["2021-03-01", "2021-04-01"]),
        (np.array(["2021-03-01T06", "2021-03-01T18"], "M8"), [f"2021-03-01T{h}:00:00" for h in ("06", 18)]),
        (np.array(["2021-03-01", "2021-03-01"], "datetime64[ns]"), ["2021-03-01", "2021-03-01"]),
        (np.array([NO_LEAP(1999, 12, 30), NO_LEAP(2000, 1, 2)]), ["1999-12-30", "2000-01-02"]),
        (np.array([NO_LEAP(2001, 2, 28, h) for h in (0, 3)]), [f"2001-02-28T0{h}:00:00" for h in (0, 3)]),
        (np.array([cftime.Datetime360Day(2001, 2, day) for day in (29, 30)]), ["2001-02-29", "2001-02-30"]),
        (np.array([b"VV", "Größe".encode(), b"\xff"], object), ["VV", "Größe", r"\xff"]),
        (np.array([b"asc", b"desc"]), ["asc", "desc"]),
        (np.array([("a", 1), (b"b", 2), None], object)[:2], ["a_1", "b_2"]),
        (np.array([6, 12], "timedelta64[h]"), ["0 days 06:00:00", "0 days 12:00:00"]),
        (np.array([pd.Timestamp(2000, 2, 3), pd.NaT], object), ["2000-02-03 00:00:00", "NaT"]),
        (np.array([], object), []),
        (np.array([1, 7]), ["1", "7"]),
    ],
)  # fmt: skip
def test_labels_of_text_steps(values: Any, expected: list[str]) -> None:
    assert label_steps(values) == expected


@pytest.mark.parametrize(
    ("steps", "names", "files"),
    [
        ([NO_LEAP(2001, 2, 28), NO_LEAP(2001, 3, 1)], ["2001-02-28", "2001-03-01"], ["20010228", "20010301"]),
        ([b"asc", b"desc/2"], ["asc", "desc/2"], ["asc", "desc-2"]),
        (
            np.array([1, 2], "m8[D]"),
            [f"{n} days 00:00:00" for n in (1, 2)],
            [f"{n}-days-00-00-00" for n in (1, 2)],
        ),
    ],
)
def test_steps_have_the_same_labels_in_bands_and_files(
    steps: Any, names: list[str], files: list[str], tmp_path: Any
) -> None:
    image = scene().expand_dims(lead=np.array(steps))
    [band] = image.data_vars
    result = image.tfexport(tmp_path / "s", patch_dimensions=2)
    raster = xee_tf.upload_image(None, result, tmp_path / "s.tif")
    with rasterio.open(raster.path) as file:
        assert file.descriptions == tuple(f"{band}_{name}" for name in names)
    results = image.tfexport(tmp_path / "e", split_dim="lead", patch_dimensions=2)
    assert list(results) == files


@given(st.lists(st.text(max_size=6) | st.floats() | st.integers(), max_size=6))
def test_labels_are_unique_file_names_on_all_file_systems(steps: list[Any]) -> None:
    values = np.empty(len(steps), object)
    values[:] = steps
    labels = file_labels(values, len(steps))
    assert len({label.casefold() for label in labels}) == len(steps)
    assert all(label and not set(label) & set('/\\:*?"<>|\0') for label in labels)


def test_each_step_is_an_export(tmp_path: Any) -> None:
    time = [datetime.date(2001, 2, 28), datetime.date(2001, 3, 1)]
    results = scene().expand_dims(time=time).tfexport(tmp_path / "s", split_dim="time", patch_dimensions=2)
    assert list(results) == ["20010228", "20010301"]
    assert sorted(path.name for path in tmp_path.glob("*-mixer.json")) == [
        "s_20010228-mixer.json",
        "s_20010301-mixer.json",
    ]


def test_a_grid_is_not_split(tmp_path: Any) -> None:
    with pytest.raises(xee_tf.OptionError, match="split_dim='y' is a spatial dimension"):
        scene().tfexport(tmp_path / "s", split_dim="y", patch_dimensions=2)


# -- Dimensions without a step ------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", ["time", "y", "x", "level"])
@pytest.mark.parametrize("options", [{}, {"sequence_data": True}, {"split_dim": "time"}, {"edge": "pad"}])
def test_nothing_to_export(dim: str, options: dict[str, Any], tmp_path: Any) -> None:
    empty = scene().expand_dims(time=2, level=3).isel({dim: slice(0, 0)})
    for export in (empty.tfexport, empty.tfexport.plan):
        with pytest.raises(xee_tf.OptionError, match=f"nothing to export: the dimension '{dim}' is empty"):
            export(tmp_path / "s", patch_dimensions=2, **options)
    with pytest.raises(xee_tf.OptionError, match=f"nothing to sample: the dimension '{dim}' is empty"):
        empty.tfexport.table(None, tmp_path / "s", n=3)
    assert not list(tmp_path.iterdir())
