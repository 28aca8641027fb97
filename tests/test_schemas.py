"""Tables whose records differ in their features, and patches with labels, written by TensorFlow."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("geopandas")
pytest.importorskip("tensorflow")

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import tensorflow as tf
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.rasters import raster
from tests.strategies import examples
from xee_tf import OptionError, RecordError, feature_spec, open_table, tf_dataset

Row = dict[str, Any]


def feature(value: Any) -> tf.train.Feature:
    """Create a feature from Python values or an array; None is a feature without a kind."""
    if value is None:
        return tf.train.Feature()
    values = value if isinstance(value, list) else [value]
    if isinstance(value, np.ndarray):
        values = value.ravel().tolist()
    if values and isinstance(values[0], str | bytes):
        texts = [text.encode() if isinstance(text, str) else text for text in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
    if values and isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def write(path: Path, rows: list[Row]) -> Path:
    with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else "") as writer:
        for row in rows:
            features = tf.train.Features(feature={name: feature(value) for name, value in row.items()})
            writer.write(tf.train.Example(features=features).SerializeToString(deterministic=True))
    return path


def same(found: Any, expected: Any) -> bool:
    """Whether two values of a table are equal; NaN, NA and None equal only themselves."""
    if expected is None or expected is pd.NA:
        return found is expected
    if isinstance(expected, np.ndarray):
        return isinstance(found, np.ndarray) and np.array_equal(found, expected)
    if isinstance(expected, float) and math.isnan(expected):
        return isinstance(found, float) and math.isnan(found)
    return bool(found == expected)


# -- The columns of a table --------------------------------------------------------------------------

NAN = float("nan")
UNIONS: dict[str, tuple[list[Row], dict[str, tuple[str, list[Any]]]]] = {
    "a number that the first record lacks": (
        [{"a": 1.5}, {"a": 2.5, "b": 3.5}, {}],
        {"a": ("float32", [1.5, 2.5, NAN]), "b": ("float32", [NAN, 3.5, NAN])},
    ),
    "a feature without a kind, and an empty list": (
        [{"a": None, "b": []}, {"a": 2.5, "b": 0.5}],
        {"b": ("float32", [NAN, 0.5]), "a": ("float32", [NAN, 2.5])},
    ),
    "identifiers with missing values stay exact": (
        [{"id": 2**60 + 1}, {"x": 0.5}, {"id": -7, "x": 1.5}],
        {"id": ("Int64", [2**60 + 1, pd.NA, -7]), "x": ("float32", [NAN, 0.5, 1.5])},
    ),
    "identifiers without missing values": (
        [{"id": 2**53 + 1}, {"id": -(2**63)}],
        {"id": ("int64", [2**53 + 1, -(2**63)])},
    ),
    "text": (
        [{"n": 0.5}, {"n": 1.5, "name": "zürich"}, {"n": 2.5, "name": ""}],
        {"n": ("float32", [0.5, 1.5, 2.5]), "name": ("object", [None, "zürich", ""])},
    ),
    "integers become floats": (
        [{"a": 3}, {"a": 0.25}, {}, {"a": -(2**40)}],
        {"a": ("float64", [3.0, 0.25, NAN, float(-(2**40))])},
    ),
    "arrays": (
        [{"p": [1.5, 2.5]}, {}, {"p": [3.5, 4.5]}],
        {"p": ("object", [np.array([1.5, 2.5], "f4"), None, np.array([3.5, 4.5], "f4")])},
    ),
    "arrays of several lengths": (
        [{"p": [1, 2]}, {"p": 7}, {"p": []}, {"p": [3, 4, 5]}],
        {"p": ("object", [np.array([1, 2]), np.array([7]), None, np.array([3, 4, 5])])},
    ),
    "several strings": (
        [{"t": ["a", "b"], "z": 0.5}, {"t": "c", "z": 0.5}, {"z": 0.5}],
        {"t": ("object", [[b"a", b"b"], [b"c"], None]), "z": ("float32", [0.5] * 3)},
    ),
    "an empty record first": ([{}, {"a": 1}], {"a": ("Int64", [pd.NA, 1])}),
}


@pytest.mark.parametrize("suffix", [".tfrecord", ".tfrecord.gz"])
@pytest.mark.parametrize("case", UNIONS)
def test_columns_are_the_union_over_records(tmp_path, case, suffix):
    rows, expected = UNIONS[case]
    path = write(tmp_path / f"t{suffix}", rows)
    whole = open_table(path)
    lazy = open_table(path, chunks=1)
    assert set(whole.columns) == set(expected)
    assert list(lazy.columns) == list(whole.columns)
    for frame in (whole, lazy, *(lazy.partitions[i].compute() for i in range(len(rows)))):
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
            name: kind for name, (kind, _) in expected.items()
        }
    for frame in (whole, lazy.compute(scheduler="sync")):
        for name, (_, values) in expected.items():
            assert all(map(same, frame[name].tolist(), values)), frame[name].tolist()
    for name in expected:
        chosen = open_table(path, [name])
        assert list(chosen) == [name]
        pd.testing.assert_series_equal(chosen[name], whole[name])


def test_columns_are_in_the_order_of_appearance(tmp_path):
    rows = [{"c": 1.5}, {"b": 0.5, "c": 1.5}, {"a": 0.5}, {"c": 2.5}] * 3
    path = write(tmp_path / "t.tfrecord", rows)
    assert list(open_table(path)) == ["c", "b", "a"]
    for chunks in (1, 2, 5):
        assert list(open_table(path, chunks=chunks).columns) == ["c", "b", "a"]


def test_files_with_different_columns(tmp_path):
    frame = pd.DataFrame({"B2": [0.5, 1.5], "name": ["oak", "fir"]})
    ours = xee_tf.export_table(frame, tmp_path / "ours").path
    theirs = write(tmp_path / "theirs.tfrecord", [{"id": 5, "B2": 2.5}])
    expected = [[0.5, "oak", pd.NA], [1.5, "fir", pd.NA], [2.5, None, 5]]
    for found in (open_table([ours, theirs]), open_table([ours, theirs], chunks=1).compute(scheduler="sync")):
        assert list(found) == ["B2", "name", "id"]
        assert str(found.dtypes["id"]) == "Int64"
        for row, values in zip(found.itertuples(index=False), expected, strict=True):
            assert all(map(same, row, values))


def test_shapes_of_arrays_with_missing_values(tmp_path):
    rows = [
        {"z": 0.5},
        {"z": 0.5, "p": [1.5, 2.5, 3.5, 4.5]},
        {"z": 0.5, "r": [1.5]},
        {"z": 0.5, "r": [1.5, 2.5]},
    ]
    path = write(tmp_path / "t.tfrecord", rows)
    found = open_table(path, shapes={"p": (2, 2)})["p"]
    assert found[0] is None
    assert found[1].tolist() == [[1.5, 2.5], [3.5, 4.5]]
    with pytest.raises(
        OptionError, match=r"'r' has 1 or 2 values per row, which cannot be reshaped to \(2,\)"
    ):
        open_table(path, shapes={"r": (2,)}, chunks=2)


@pytest.mark.parametrize("chunks", [None, 2])
@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"a": "x"}, r"t.tfrecord: record 3: feature 'a' holds 1 byte string.*before it hold 1 float"),
        ({"a": 2**53 + 1}, r"t.tfrecord: record 3: feature 'a' holds the integer 9007199254740993"),
    ],
)
def test_values_of_incompatible_kinds_raise(tmp_path, odd, message, chunks):
    path = write(tmp_path / "t.tfrecord", [{"a": 0.5, "b": 1.5}] * 3 + [odd])
    with pytest.raises(RecordError, match=message):
        open_table(path, chunks=chunks).compute(scheduler="sync") if chunks else open_table(path)
    assert open_table(path, ["b"])["b"].tolist()[:3] == [1.5] * 3


def test_records_without_features(tmp_path):
    path = write(tmp_path / "t.tfrecord", [{}, {"a": None}])
    for chunks in (None, 1):
        with pytest.raises(
            RecordError, match=r"t.tfrecord: record 0 and all other records of .* hold no feat"
        ):
            open_table(path, chunks=chunks)
    with pytest.raises(OptionError, match=r"Columns 'c' not found; available: 'a', 'b'"):
        open_table(write(tmp_path / "u.tfrecord", [{"a": 0.5}, {"b": 0.5}]), ["c"])


def test_a_file_that_changes_between_opening_and_reading(tmp_path):
    path = write(tmp_path / "t.tfrecord", [{"a": 0.5}] * 4)
    lazy = open_table(path, chunks=2)
    write(path, [{"b": 0.5}] * 4)
    with pytest.raises(RecordError, match=r"t.tfrecord was replaced or modified after it was opened"):
        lazy.compute(scheduler="sync")


names = st.sampled_from(["a", "b", "c", "length of a name that takes more than one byte" * 3])
lists = st.one_of(
    st.lists(st.floats(width=32, allow_nan=False), max_size=3).map(lambda v: np.array(v, "f4")),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2).map(lambda v: np.array(v, "i8")),
    st.lists(st.binary(max_size=200), max_size=2),
)


@examples(40)
@given(st.lists(st.dictionaries(names, lists), min_size=1, max_size=12), st.integers(1, 5), st.booleans())
def test_any_records_match_their_rows(tmp_path_factory, rows, chunks, shuffled):
    """The name of a feature includes its kind, so that kinds are not mixed."""
    kinds = {np.dtype("f4"): "float", np.dtype("i8"): "int"}
    rows = [
        {f"{n} {kinds[v.dtype] if isinstance(v, np.ndarray) else 'text'}": v for n, v in r.items()}
        for r in rows
    ]
    path = tmp_path_factory.mktemp("any") / "t.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, row in enumerate(rows):
            example = tf.train.Example()
            for name in sorted(row, reverse=shuffled and number % 2 == 1):
                target = example.features.feature[name]
                if isinstance(row[name], list):
                    target.bytes_list.value.extend(row[name])
                elif row[name].dtype == "f4":
                    target.float_list.value.extend(row[name])
                else:
                    target.int64_list.value.extend(row[name])
                target.SetInParent()
                if not len(row[name]):
                    {"text": target.bytes_list, "float": target.float_list, "int": target.int64_list}[
                        name.rsplit(" ", 1)[1]
                    ].SetInParent()
            writer.write(example.SerializeToString())
    columns = {name for row in rows for name in row}
    if not columns:
        with pytest.raises(RecordError, match="no feature"):
            open_table(path)
        return
    found = open_table(path, encoding=None)
    pd.testing.assert_frame_equal(
        open_table(path, encoding=None, chunks=chunks).compute(scheduler="sync"), found
    )
    assert set(found) == columns
    for name in columns:
        sizes = {len(row[name]) for row in rows if name in row}
        sizes = sizes - {0} or sizes
        for row, value in zip(rows, found[name].tolist(), strict=True):
            if name not in row or (not len(row[name]) and sizes != {0}):
                assert value is None or value is pd.NA or value != value
            elif sizes == {1}:
                assert value == row[name][0]
            else:
                np.testing.assert_array_equal(value, row[name])


def test_records_with_missing_features_are_decoded_together(tmp_path, monkeypatch):
    """Only a few of 4000 records with any of 2**9 sets of features are parsed one by one."""
    from xee_tf.records import decode

    rng = np.random.default_rng(0)
    rows = [
        {"name": f"site {i}", "id": i} | {f"B{k}": i + k / 8 for k in range(9) if rng.random() > 0.2}
        for i in range(4000)
    ]
    path = write(tmp_path / "t.tfrecord", rows)
    parsed = []
    whole = decode._parse_row
    monkeypatch.setattr(decode, "_parse_row", lambda *args: parsed.append(args) or whole(*args))
    found = open_table(path)
    assert len(parsed) < 20
    for k in range(9):
        expected = [row.get(f"B{k}", NAN) for row in rows]
        np.testing.assert_array_equal(found[f"B{k}"], np.array(expected, "f4"))
    assert found["id"].tolist() == list(range(4000))
    assert found["name"].tolist() == [row["name"] for row in rows]


# -- Uses of such tables -----------------------------------------------------------------------------

SITES = [
    {"longitude": 13.5, "latitude": 45.0, "name": "oak", "id": 2**40},
    {"longitude": 13.75, "latitude": 45.25, "cover": 0.5},
]


@pytest.mark.parametrize("suffix", [".parquet", ".gpkg"])
def test_upload_of_a_table_with_missing_values(tmp_path, suffix):
    path = write(tmp_path / "t.tfrecord", SITES)
    file = xee_tf.upload_table(path, tmp_path / f"t{suffix}")
    found = gpd.read_parquet(file.path) if suffix == ".parquet" else gpd.read_file(file.path)
    assert found.geometry.to_wkt().tolist() == ["POINT (13.5 45)", "POINT (13.75 45.25)"]
    assert found["name"].tolist()[0] == "oak"
    assert pd.isna(found["name"][1])
    assert int(found["id"][0]) == 2**40
    assert pd.isna(found["id"][1])
    assert pd.isna(found["cover"][0])


def test_missing_coordinates_raise(tmp_path):
    path = write(tmp_path / "t.tfrecord", [{"longitude": 13, "latitude": 45}, {"latitude": 45}])
    with pytest.raises(RecordError, match=r"Record 1 has no coordinates: longitude is nan"):
        xee_tf.upload_table(path, tmp_path / "t.gpkg")


def test_export_and_prediction_of_a_table_with_missing_values(tmp_path):
    rows = [{"a": 1.5, "n": 3, "name": "oak", "p": [1.5, 2.5]}, {"a": 2.5}]
    frame = open_table(write(tmp_path / "t.tfrecord", rows))
    with pytest.raises(OptionError, match=r"'p': row 1 holds NoneType None.*dropna\(subset=\['p'\]\)"):
        xee_tf.export_table(frame, tmp_path / "again")
    again = open_table(xee_tf.export_table(frame.drop(columns="p"), tmp_path / "again").path)
    assert again["a"].tolist() == [1.5, 2.5]
    assert again["name"].tolist() == ["oak", ""]
    np.testing.assert_array_equal(again["n"], [3, NAN])
    model = xee_tf.Model.from_function(
        lambda rows: rows.sum(-1), input_properties=["a", "n"], output_properties=["sum"]
    )
    np.testing.assert_array_equal(model.predict_properties(frame)["sum"], [4.5, NAN])


# -- Patches with labels -----------------------------------------------------------------------------


def neighbourhoods(count: int, height: int, width: int, **more: Any) -> list[Row]:
    """Records as in neighbourhood samples of Earth Engine: two bands of patches, labels and text."""
    rng = np.random.default_rng(height * width)
    return [
        {
            "system:index": f"{i:04d}_0",
            "B2": rng.random((height, width), "f4"),
            "B3": rng.random((height, width), "f4"),
            "label": float(i % 3),
            "class": i + 2**30,
            "longitude": 13.0 + i,
            "cover": [i / 4, 0.5, 0.25],
            **more,
        }
        for i in range(count)
    ]


def joined(dataset: tf.data.Dataset) -> Any:
    parts = list(dataset)
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(values) for values in zip(*parts, strict=True))
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("width", "height", "suffix"), [(20, 20, ".tfrecord"), (9, 4, ".tfrecord.gz"), (1, 5, ".tfrecord")]
)
@pytest.mark.parametrize("target", ["class", "cover", ["label", "longitude"]])
def test_patches_with_labels(tmp_path, width, height, suffix, target):
    rows = neighbourhoods(5, height, width)
    path = write(tmp_path / f"t{suffix}", rows)
    names = [target] if isinstance(target, str) else target
    expected = np.array([[x for name in names for x in np.atleast_1d(row[name])] for row in rows], "f4")
    dataset = tf_dataset(
        path, inputs=["B3", "B2"], targets=target, patch_dimensions=(width, height), batch_size=2
    )
    shapes = [spec.shape.as_list() for spec in dataset.element_spec]
    assert shapes == [[None, height, width, 2], [None, expected.shape[1]]]
    found, labels = joined(dataset)
    np.testing.assert_array_equal(found[..., 0], [row["B3"] for row in rows])
    np.testing.assert_array_equal(found[..., 1], [row["B2"] for row in rows])
    np.testing.assert_array_equal(labels, expected)


def test_labels_stay_with_their_patches(tmp_path):
    rows = neighbourhoods(7, 3, 3)
    path = write(tmp_path / "t.tfrecord", rows)
    options: dict[str, Any] = {"inputs": "B2", "patch_dimensions": 3, "batch_size": 2}
    patches = np.stack([row["B2"] for row in rows])
    exact = joined(tf_dataset(path, targets="class", target_dtype="int64", **options))[1]
    assert exact[:, 0].tolist() == [row["class"] for row in rows]
    images, labels = joined(tf_dataset(path, targets="longitude", shuffle=True, seed=4, **options))
    numbers = (labels[:, 0] - 13).astype(int)
    assert sorted(numbers) == list(range(7)) != numbers.tolist()
    np.testing.assert_array_equal(images[..., 0], patches[numbers])
    pixels, repeated = joined(tf_dataset(path, targets="cover", unit="pixel", **options))
    np.testing.assert_array_equal(pixels, patches.reshape(-1, 1))
    np.testing.assert_array_equal(repeated, np.repeat([row["cover"] for row in rows], 9, axis=0))


def test_bytes_are_patches_if_there_is_one_per_pixel(tmp_path):
    rows = [{"a": bytes(range(i, i + 12)), "name": "x" * (i + 1), "label": 0.5} for i in range(3)]
    path = write(tmp_path / "t.tfrecord", rows)
    found, labels = joined(tf_dataset(path, inputs="a", targets="label", patch_dimensions=(4, 3)))
    np.testing.assert_array_equal(found.reshape(3, 12), [list(row["a"]) for row in rows])
    assert labels.tolist() == [[0.5]] * 3


def test_features_missing_in_the_first_record(tmp_path):
    rows = neighbourhoods(300, 4, 4)
    for row in rows[:250]:
        del row["label"]
    del rows[0]["B2"]
    paths = [write(tmp_path / "a.tfrecord", rows[:150]), write(tmp_path / "b.tfrecord.gz", rows[150:])]
    found, labels = joined(tf_dataset(paths, inputs="B2", targets="label", patch_dimensions=4))
    np.testing.assert_array_equal(found[1:, ..., 0], [row["B2"] for row in rows[1:]])
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(labels[:, 0], [row.get("label", NAN) for row in rows])


def test_margins_of_patches_with_labels(tmp_path):
    rows = neighbourhoods(3, 10, 14)
    path = write(tmp_path / "t.tfrecord", rows)
    patches = np.stack([row["B2"] for row in rows])[..., None]
    for kernel in ({"kernel_size": (6, 4)}, {"kernel_size": (7, 5)}):
        options = {"inputs": "B2", "patch_dimensions": (8, 6), **kernel}
        whole, labels = joined(tf_dataset(path, targets="label", **options))
        np.testing.assert_array_equal(whole, patches)
        assert labels.shape == (3, 1)
        cut, target = joined(tf_dataset(path, targets="B3", target_margins="trim", **options))
        np.testing.assert_array_equal(cut, patches)
        np.testing.assert_array_equal(target[..., 0], np.stack([row["B3"] for row in rows])[:, 2:-2, 3:-3])
        pixels, each = joined(tf_dataset(path, targets="label", unit="pixel", **options))
        np.testing.assert_array_equal(pixels, patches[:, 2:-2, 3:-3].reshape(-1, 1))
        assert each.shape == (3 * 48, 1)


def test_array_bands_with_labels(tmp_path):
    rng = np.random.default_rng(5)
    rows = [
        {"ndvi": rng.random((3, 4, 5), "f4"), "dem": rng.random((4, 5), "f4"), "label": i} for i in range(3)
    ]
    path = write(tmp_path / "t.tfrecord", rows)
    options: dict[str, Any] = {"patch_dimensions": (5, 4)}
    for depths in ({}, {"tensor_depths": {"ndvi": 3}}):
        series, labels = joined(
            tf_dataset(path, inputs=["ndvi", "dem"], targets="label", **options, **depths)
        )
        np.testing.assert_array_equal(series[..., 0], [row["ndvi"] for row in rows])
        np.testing.assert_array_equal(series[..., 1], [np.stack([row["dem"]] * 3) for row in rows])
        np.testing.assert_array_equal(labels, [[0], [1], [2]])
    with pytest.raises(RecordError, match=r"'ndvi' has 60 values per record.*4 values per pixel"):
        tf_dataset(path, inputs=["ndvi", "dem"], tensor_depths={"ndvi": 4}, **options)


def test_tensor_depths_mark_a_label_with_the_length_of_a_patch(tmp_path):
    rows = [{"B2": np.full((3, 3), i, "f4"), "chances": [k / 16 for k in range(9)]} for i in range(2)]
    path = write(tmp_path / "t.tfrecord", rows)
    options: dict[str, Any] = {"inputs": "B2", "targets": "chances", "patch_dimensions": 3}
    assert joined(tf_dataset(path, **options))[1].shape == (2, 3, 3, 1)
    assert joined(tf_dataset(path, tensor_depths={"chances": 9}, **options))[1].shape == (2, 9)


def test_a_number_stacked_with_patches_is_repeated_at_every_pixel(tmp_path):
    rows = neighbourhoods(3, 4, 4)
    path = write(tmp_path / "t.tfrecord", rows)
    found = joined(tf_dataset(path, inputs=["B2", "longitude"], patch_dimensions=4))
    np.testing.assert_array_equal(found[..., 0], [row["B2"] for row in rows])
    np.testing.assert_array_equal(found[..., 1], [np.full((4, 4), row["longitude"]) for row in rows])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"inputs": ["B2", "system:index"]}, OptionError, "'system:index' contains strings"),
        ({"inputs": "B2", "targets": "system:index"}, OptionError, "'system:index' contains strings"),
        ({"inputs": ["B2", "cover"]}, OptionError, "'cover' has 3 values per record.*zip"),
        ({"inputs": "B2", "kernel_size": 5}, RecordError, r"kernel_size=\(5, 5\) have 64"),
        ({"inputs": "label"}, RecordError, "'label' has 1 value per record.*omit them"),
        ({"inputs": "B2", "patch_dimensions": 5}, RecordError, "'B2' has 16 values .*5 x 5 pixels have 25"),
        ({"inputs": "B9"}, OptionError, "Band 'B9' not found; available: 'B2'"),
        ({"inputs": "B2", "patch_dimensions": 0}, OptionError, "patch_dimensions must be at least 1"),
        ({"inputs": "B2", "kernel_size": (3, 0)}, OptionError, r"kernel_size must be .*got \(3, 0\)"),
        ({"inputs": "B2", "patch_dimensions": None, "unit": "patch"}, OptionError, "patch_dimensions="),
        ({"inputs": "label", "patch_dimensions": None, "unit": "patch"}, OptionError, "a single pixel"),
    ],
)
def test_features_that_cannot_be_stacked_raise(tmp_path, options, error, message):
    path = write(tmp_path / "t.tfrecord", neighbourhoods(3, 4, 4))
    with pytest.raises(error, match=message):
        tf_dataset(path, **{"patch_dimensions": 4, **options})


def test_patches_with_different_margins_raise(tmp_path):
    rows = [{"B2": np.zeros((6, 6), "f4"), "mask": np.zeros((4, 4), "f4")}]
    path = write(tmp_path / "t.tfrecord", rows)
    with pytest.raises(RecordError, match=r"'mask' has 16 values.*without a margin.*6 x 6 pixels"):
        tf_dataset(path, inputs="B2", targets="mask", patch_dimensions=4, kernel_size=2)


def test_the_spec_parses_patches_with_labels(tmp_path):
    rows = neighbourhoods(3, 4, 5)
    path = write(tmp_path / "t.tfrecord", rows)
    spec = feature_spec(path, patch_dimensions=(5, 4))
    assert spec["B2"] == tf.io.FixedLenFeature([4, 5], tf.float32)
    assert spec["label"] == tf.io.FixedLenFeature([1], tf.float32)
    assert spec["class"] == tf.io.FixedLenFeature([1], tf.int64)
    assert spec["cover"] == tf.io.FixedLenFeature([3], tf.float32)
    assert spec["system:index"] == tf.io.FixedLenFeature([1], tf.string)
    parsed = tf.io.parse_example(list(tf.data.TFRecordDataset(str(path))), spec)
    np.testing.assert_array_equal(parsed["B3"], [row["B3"] for row in rows])
    assert parsed["system:index"].numpy().tolist() == [[b"0000_0"], [b"0001_0"], [b"0002_0"]]


# -- Training on tables with missing values-----------------------------------------------------------

GAPS = [{"a": 0.5, "label": []}, {"a": 1.5, "label": 3.5, "id": 7, "name": "x"}, {"label": 2.5, "id": 8}]


def test_missing_numbers_are_nan_or_raise(tmp_path):
    path = write(tmp_path / "t.tfrecord", GAPS)
    inputs, targets = joined(tf_dataset(path, inputs=["a", "id"], targets="label"))
    np.testing.assert_array_equal(inputs, [[0.5, NAN], [1.5, 7], [NAN, 8]])
    np.testing.assert_array_equal(targets, [[NAN], [3.5], [2.5]])
    for target in ("label", "id"):
        dataset = tf_dataset(path, inputs="a", targets=target, target_dtype="int32")
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=f"t.tfrecord lack a value of {target}, and int32"
        ):
            joined(dataset)


def test_the_spec_parses_a_table_with_missing_values(tmp_path):
    path = write(tmp_path / "t.tfrecord", [*GAPS, {"many": [0.5, 1.5]}, {"many": [2.5]}])
    spec = feature_spec(path)
    parsed = tf.io.parse_example(list(tf.data.TFRecordDataset(str(path))), spec)
    np.testing.assert_array_equal(parsed["a"][:, 0], [0.5, 1.5, NAN, NAN, NAN])
    assert parsed["label"].values.numpy().tolist() == [3.5, 2.5]
    assert parsed["name"].numpy()[:, 0].tolist() == [b"", b"x", b"", b"", b""]
    assert tf.sparse.to_dense(parsed["id"]).numpy()[:, 0].tolist() == [0, 7, 8, 0, 0]
    assert parsed["many"].values.numpy().tolist() == [0.5, 1.5, 2.5]


def test_lists_longer_than_in_the_first_record_raise(tmp_path):
    path = write(tmp_path / "t.tfrecord", [{"a": [0.5, 1.5], "z": 1.5}, {"a": [2.5]}, {"a": [2.5, 3.5, 4.5]}])
    dataset = tf_dataset(path, inputs="a", batch_size=2)
    np.testing.assert_array_equal(next(iter(dataset))[..., 0], [[0.5, 1.5], [2.5, NAN]])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"t.tfrecord have more than 2 values of a"):
        joined(dataset)


def test_a_feature_of_two_kinds_raises(tmp_path):
    path = write(tmp_path / "t.tfrecord", [{"a": 0.5}, {"a": 1, "b": 0.5}])
    with pytest.raises(RecordError, match="'a' has float lists in some records and int64 lists"):
        tf_dataset(path, inputs=["a", "b"])


def test_cardinality_of_a_table(tmp_path):
    """If it is unknown, Keras warns that the input ran out of data."""
    frame = pd.DataFrame({"a": np.arange(7.0), "b": np.arange(7.0)})
    dataset = tf_dataset(
        xee_tf.export_table(frame, tmp_path / "t").path, inputs="a", targets="b", batch_size=2
    )
    assert dataset.cardinality() == 4
    assert len(joined(dataset)[0]) == 7


def test_files_without_records_raise(tmp_path):
    path = write(tmp_path / "t.tfrecord", [])
    (tmp_path / "t.tfrecord.gz").write_bytes(gzip.compress(b""))
    for each in (path, tmp_path / "t.tfrecord.gz"):
        with pytest.raises(RecordError, match="contains no records"):
            tf_dataset(each, inputs="a", patch_dimensions=4)
        with pytest.raises(RecordError, match="contains no records"):
            open_table(each)


# -- Predictions for Datasets ------------------------------------------------------------------------


def total() -> xee_tf.Model:
    return xee_tf.Model.from_function(
        lambda rows: rows.sum(-1), input_properties=["a"], output_properties=["total"]
    )


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("chunk", [None, 2])
def test_one_output_of_a_dataset(count, chunk):
    table = xr.Dataset({"a": ("row", np.arange(count, dtype="f8"))}, {"row": np.arange(count) * 10})
    found = total().predict_properties(table if chunk is None else table.chunk(row=chunk))
    assert found["total"].dims == ("row",)
    assert found["total"].values.tolist() == list(range(count))
    assert found["row"].values.tolist() == [10 * i for i in range(count)]
    assert total().predict_properties(table.to_dataframe())["total"].tolist() == list(range(count))


def test_arrays_and_text_of_a_dataset():
    profile = np.arange(12.0).reshape(3, 4)
    table = xr.Dataset(
        {"p": (("depth", "row"), profile.T), "name": ("row", np.array(["a", "b", "c"], object))}
    )
    model = xee_tf.Model.from_function(
        lambda batch: {"back": batch["p"][:, ::-1]},
        named=True,
        input_properties=["p"],
        output_properties={"back": {"type": "double", "shape": [4]}},
    )
    for each in (table, table.chunk(row=2, depth=3)):
        found = model.predict_properties(each)["back"]
        assert found.dims == ("row", "back_0")
        np.testing.assert_array_equal(found, profile[:, ::-1])
    loud = xee_tf.Model.from_function(
        lambda batch: {"loud": np.array([f"{name}!" for name in batch["name"]], object)},
        named=True,
        input_properties=["name"],
        output_properties={"loud": "string"},
    )
    assert loud.predict_properties(table)["loud"].values.tolist() == ["a!", "b!", "c!"]


@pytest.mark.parametrize("name", ["row", "depth", "site", "p"])
def test_outputs_with_an_existing_name_raise(name):
    table = xr.Dataset(
        {"a": ("row", [1.0, 2.0]), "p": (("row", "depth"), np.ones((2, 3)))}, {"site": ("row", ["x", "y"])}
    )
    model = xee_tf.Model.from_function(np.sum, input_properties=["a"], output_properties=[name])
    with pytest.raises(OptionError, match=rf"already has the columns '{name}'"):
        model.predict_properties(table)
    points = gpd.GeoDataFrame({"a": [1.0]}, geometry=gpd.points_from_xy([1], [2]), crs=4326)
    with pytest.raises(OptionError, match="already"):
        xee_tf.Model.from_function(
            np.sum, input_properties=["a"], output_properties=["geometry"]
        ).predict_properties(points)


# -- Polygons without pixels -------------------------------------------------------------------------


def scene() -> xr.Dataset:
    return raster({"B2": np.arange(64.0).reshape(8, 8)})


def box(ds: xr.Dataset, column: float, row: float, width: float, height: float) -> Any:
    """A rectangle in pixel coordinates of a raster."""
    affine = ds.rio.transform() if not ds.rio.crs else ds.rio.transform(recalc=True)
    (left, top), (right, bottom) = affine @ (column, row), affine @ (column + width, row + height)
    return shapely.box(min(left, right), min(top, bottom), max(left, right), max(top, bottom))


def fields(*boxes: tuple[float, float, float, float]) -> gpd.GeoDataFrame:
    ds = scene()
    return gpd.GeoDataFrame(
        {"field": np.arange(len(boxes))}, geometry=[box(ds, *each) for each in boxes], crs="EPSG:32633"
    )


TINY = (2.1, 3.1, 0.2, 0.2)
THIN = (0.6, 0.1, 0.8, 7.8)  # long, and between two columns of centres


@pytest.mark.parametrize("compute", [True, False])
@pytest.mark.parametrize("options", [{}, {"n": 2}, {"n": 1, "class_band": "field"}, {"geometry": None}])
@pytest.mark.parametrize("boxes", [[TINY], [THIN], [TINY, THIN]])
def test_polygons_without_pixels_raise(tmp_path, boxes, options, compute):
    with pytest.raises(OptionError, match=r"no pixel.* no pixel center.*all_touched=True"):
        xee_tf.sample_table(scene(), fields(*boxes), tmp_path / "t", compute=compute, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("compute", [True, False])
def test_polygons_without_pixels_are_omitted_with_a_warning(tmp_path, compute, chunk):
    ds = scene() if chunk is None else scene().chunk(x=chunk, y=chunk)
    where = fields(TINY, (1, 1, 2, 2), THIN, (6.4, 6.4, 0.9, 0.9))
    with pytest.warns(UserWarning, match="2 of 4 polygons cover no pixel center.*is row 0") as caught:
        result = xee_tf.sample_table(ds, where, tmp_path / "t", compute=compute)
    assert len(caught) == 1
    if not compute:
        (result,) = dask.compute(result)
    found = open_table(result.path)
    assert found["field"].tolist() == [1, 1, 1, 1, 3]
    assert found["B2"].tolist() == [9, 10, 17, 18, 54]
    touched = xee_tf.sample_table(ds, where, tmp_path / "touched", all_touched=True)
    assert sorted(set(open_table(touched.path)["field"])) == [0, 1, 2, 3]


def test_a_ring_whose_representative_point_is_not_in_a_sampled_pixel(tmp_path):
    """The centre of the pixel of the representative point is outside, other centres are inside."""
    ds = scene()
    ring = box(ds, 0.9, 0.9, 5.2, 5.2).difference(box(ds, 1.6, 1.6, 3.8, 3.8))
    where = gpd.GeoSeries([ring], crs="EPSG:32633")
    found = open_table(xee_tf.sample_table(ds, where, tmp_path / "t").path)
    assert len(found) == 25 - 9


def test_empty_features_raise(tmp_path):
    for where in (fields(TINY)[:0], gpd.GeoSeries([], crs=4326)):
        with pytest.raises(OptionError, match="no points or polygons"):
            xee_tf.sample_table(scene(), where, tmp_path / "t")
    with pytest.raises(OptionError, match="no geometry column"):
        xee_tf.sample_table(scene(), gpd.GeoDataFrame({"a": [1]}), tmp_path / "t")


def test_masked_pixels_are_counted(tmp_path):
    ds = scene().where(lambda ds: ds["B2"] % 4 != 1).chunk(x=3)
    where = fields((0, 0, 4, 2), (4, 4, 4, 1))
    result = xee_tf.sample_table(ds, where, tmp_path / "t")
    assert (result.records, result.dropped) == (9, 3)
    assert "dropped  3 of 12 pixels: masked" in repr(result)
    kept = xee_tf.sample_table(ds, where, tmp_path / "all", drop_nulls=False)
    assert (kept.records, kept.dropped) == (12, 0)
    assert "dropped" not in repr(kept)
