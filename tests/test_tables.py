"""Tables: all values of all columns, read with TensorFlow's protobufs and with this package."""

import gzip
import os
import time
from pathlib import Path

import pytest

pytest.importorskip("dask.dataframe")
pytest.importorskip("geopandas")
pytest.importorskip("tensorflow")

import crc32c
import dask
import dask.array as da
import dask.dataframe as dd
import fsspec
import geopandas as gpd
import numpy as np
import pandas as pd
import tensorflow as tf
import xarray as xr
from dask.system import CPU_COUNT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.counting_proxy import Call
from tests.strategies import examples, names
from xee_tf.errors import (
    DestinationExistsError,
    GeoreferenceError,
    MissingShardError,
    OptionError,
    RecordError,
)
from xee_tf.records.crc import row_crcs
from xee_tf.tables.export import export_table
from xee_tf.tables.read import open_table
from xee_tf.upload.table import upload_table

# -- The reference: plain protobuf objects ------------------------------------------------------------


def example(row):
    """Encode a row as a plain `tf.train.Example`."""
    features = {}
    for name, value in row.items():
        if isinstance(value, str | bytes):
            data = value.encode() if isinstance(value, str) else value
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
        else:
            with np.errstate(over="ignore"):
                numbers = np.asarray(value, "f8").astype("f4").ravel().tolist()
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=numbers))
    return tf.train.Example(features=tf.train.Features(feature=features))


def write_examples(path, rows):
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for row in rows:
            writer.write(example(row).SerializeToString())
    return path


def records(path):
    dataset = tf.data.TFRecordDataset([str(path)], compression_type="GZIP")
    return [tf.train.Example.FromString(data) for data in dataset.as_numpy_iterator()]


def assert_same(found, expected):
    """Check that two lists of Examples are equal; unlike in protobuf's comparison, NaN equals NaN."""
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        assert set(one.features.feature) == set(two.features.feature)
        for name, feature in one.features.feature.items():
            other = two.features.feature[name]
            assert feature.WhichOneof("kind") == other.WhichOneof("kind")
            assert list(feature.bytes_list.value) == list(other.bytes_list.value)
            np.testing.assert_array_equal(feature.float_list.value, other.float_list.value)


def table(rows=1000, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "B2": rng.random(rows),
            "B3": rng.random(rows).astype("f4"),
            "name": [f"site {'x' * int(n)}" for n in rng.integers(0, 150, rows)],
            "landcover": rng.integers(0, 7, rows),
            "patch": list(rng.random((rows, 3, 2)).astype("f4")),
        }
    )


def rows_of(frame):
    return frame.to_dict("records")


def test_code_of_the_guide_reads_a_table(tmp_path):
    rng = np.random.default_rng(0)
    bands = ["B2", "B3", "B4", "B5", "B6", "B7", "landcover"]
    frame = pd.DataFrame({name: rng.random(50).astype("f4") for name in bands})
    exportedFilePath = export_table(frame, tmp_path / "training").path  # noqa: N806 - the guide's name

    # The code of the guide, with the compression type that its text mentions.
    dataset = tf.data.TFRecordDataset(exportedFilePath, compression_type="GZIP")
    featuresDict = {  # noqa: N806
        "B2": tf.io.FixedLenFeature(shape=[1], dtype=tf.float32),
        "B3": tf.io.FixedLenFeature(shape=[1], dtype=tf.float32),
        "B4": tf.io.FixedLenFeature(shape=[1], dtype=tf.float32),
        "B5": tf.io.FixedLenFeature(shape=[1], dtype=tf.float32),
        "B6": tf.io.FixedLenFeature(shape=[1], dtype=tf.float32),
        "B7": tf.io.FixedLenFeature(shape=[1], dtype=tf.float32),
        "landcover": tf.io.FixedLenFeature(shape=[1], dtype=tf.float32),
    }
    parsedDataset = dataset.map(  # noqa: N806
        lambda example: tf.io.parse_single_example(example, featuresDict)
    )

    found = list(parsedDataset.as_numpy_iterator())
    assert len(found) == 50
    for name in bands:
        np.testing.assert_array_equal(np.concatenate([row[name] for row in found]), frame[name])


def test_feature_spec_parses_arrays_and_strings(tmp_path):
    frame = table(20)
    result = export_table(frame, tmp_path / "t")
    assert result.shapes == {"patch": (3, 2)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t-table.tfexport", "t.tfrecord.gz"]
    parsed = tf.data.TFRecordDataset(result.path, "GZIP").map(
        lambda data: tf.io.parse_single_example(data, result.feature_spec())
    )
    for row, found in zip(rows_of(frame), parsed.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(found["patch"], row["patch"])
        assert found["name"][0].decode() == row["name"]


# -- Any table ----------------------------------------------------------------------------------------

numbers = st.sampled_from(["f8", "f4", "f2", "i2", "u1", "?", "Int16", "Float64", "boolean"])
texts = st.text(st.characters(codec="utf-8"), max_size=9) | st.text("ab", min_size=120, max_size=140)


@st.composite
def columns(draw, rows):
    """Draw a column as a Series, and the expected value in the record of each row."""
    kind = draw(st.sampled_from(["number", "text", "bytes", "array", "category", "missing text"]))
    if kind == "number":
        dtype = draw(numbers)
        if dtype[0].isupper() or dtype == "boolean":
            plain = {"Int16": "i2", "Float64": "f8", "boolean": "?"}[dtype]
            values = draw(hnp.arrays(plain, rows))
            absent = draw(hnp.arrays("?", rows))
            series = pd.Series(values).astype(dtype).mask(absent)
            return series, [np.nan if gone else value for value, gone in zip(values, absent, strict=True)]
        values = draw(hnp.arrays(dtype, rows))
        return pd.Series(values), list(values)
    if kind == "array":
        shape = draw(st.sampled_from([(1,), (3,), (2, 2), (0,), (40,)]))
        values = draw(hnp.arrays(draw(st.sampled_from(["f4", "f8", "i2"])), (rows, *shape)))
        as_lists = draw(st.booleans())
        series = pd.Series([value.tolist() if as_lists else value for value in values], dtype=object)
        return series, list(values)
    if kind == "bytes":
        values = draw(st.lists(st.binary(max_size=9), min_size=rows, max_size=rows))
        return pd.Series(values, dtype=object), values
    values = draw(st.lists(texts, min_size=rows, max_size=rows))
    if kind == "category":
        return pd.Series(values, dtype="str").astype("category"), values
    if kind == "missing text":
        # At least one string determines the kind of the column.
        values = [values[0], *(draw(st.sampled_from([value, None])) for value in values[1:])]
        dtype = draw(st.sampled_from([object, "str"]))
        return pd.Series(values, dtype=dtype), [value or "" for value in values]
    return pd.Series(values, dtype=draw(st.sampled_from([object, "str"]))), values


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 5))
    chosen = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    drawn = {name: draw(columns(rows)) for name in chosen}
    frame = pd.DataFrame({name: series for name, (series, _) in drawn.items()})
    expected = [{name: values[row] for name, (_, values) in drawn.items()} for row in range(rows)]
    # Large tables take other code paths than small ones.
    many = draw(st.sampled_from([1, 1, 300]))
    return pd.concat([frame] * many, ignore_index=True), expected * many


@pytest.mark.filterwarnings("ignore:The columns .* hold integers")
@examples(50)
@given(tables())
def test_all_values_of_any_table(tmp_path_factory, case):
    frame, expected = case
    folder = tmp_path_factory.mktemp("table")
    with dask.config.set(scheduler="sync"):
        result = export_table(frame, folder / "t")
    plain = [example(row) for row in expected]
    assert_same(records(result.path), plain)
    assert result.records == len(frame)
    assert result.bytes == os.path.getsize(result.path)
    assert result.file.crc32c == crc32c.crc32c(Path(result.path).read_bytes())

    found = open_table(result.path, encoding=None, shapes=result.shapes)
    assert list(found.columns) == list(frame.columns)
    for row, wanted in zip(rows_of(found), expected, strict=True):
        for name, value in wanted.items():
            if isinstance(value, str | bytes):
                assert row[name] == (value.encode() if isinstance(value, str) else value)
            else:
                with np.errstate(over="ignore"):
                    np.testing.assert_array_equal(row[name], np.asarray(value, "f8").astype("f4"))


@given(
    st.integers(0, 600),
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(0, 59), st.integers(1, 40)), max_size=4),
    st.integers(0, 99),
)
def test_checksums_of_records(count, length, spans, seed):
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.integers(0, 256, (1, length), "u1"), count, axis=0)
    varying, end = [], 0
    for start, size in sorted(spans):
        start = max(start, end)
        if start < length:
            end = min(start + size, length)
            varying.append((start, end))
            rows[:, start:end] = rng.integers(0, 256, (count, end - start))
    framed = np.empty((count, length + 7), "u1")
    framed[:, 3:-4] = rows
    for places in (varying, None):
        found = row_crcs(framed[:, 3:-4], places)
        assert found.tolist() == [crc32c.crc32c(row.tobytes()) for row in rows]


# -- Dask frames, Datasets and points -----------------------------------------------------------------


def dask_frame(frame, parts):
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_pandas(frame, npartitions=parts, sort=False)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_dask_frame_is_exported_in_row_order(tmp_path, scheduler):
    frame = table(1000)
    lazy = dask_frame(frame, 7)
    lazy = lazy[lazy.B2 > 0.1]
    with dask.config.set(scheduler=scheduler):
        result = export_table(lazy, tmp_path / "lazy")
    eager = export_table(frame[frame.B2 > 0.1], tmp_path / "eager")
    assert gzip.decompress(Path(result.path).read_bytes()) == gzip.decompress(Path(eager.path).read_bytes())
    names = sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".gz")
    assert names == ["eager.tfrecord.gz", "lazy.tfrecord.gz"]


def test_each_partition_of_a_dask_frame_is_computed_once(tmp_path):
    seen = []

    def load(number):
        seen.append(number)
        return pd.DataFrame({"B2": np.full(1000, number, "f4")})

    lazy = dd.from_map(load, range(20), meta=pd.DataFrame({"B2": np.empty(0, "f4")}))
    delayed = export_table(lazy, tmp_path / "t", compute=False)
    assert not seen
    assert not list(tmp_path.iterdir())
    assert len(dict(delayed.__dask_graph__())) < 5 * 20
    result = delayed.compute(scheduler="threads")
    assert sorted(seen) == list(range(20))
    found = open_table(result.path)
    np.testing.assert_array_equal(found.B2, np.repeat(np.arange(20), 1000))


def test_row_groups_wait_for_uploads(bucket, tmp_path):
    """A table that is uploaded more slowly than it is encoded does not collect in memory."""
    seen, counts = [], []

    def load(number):
        seen.append(number)
        return pd.DataFrame({"B2": np.full(100, number, "f4")})

    def slow():
        time.sleep(0.5)
        counts.append(len(seen))

    lazy = dd.from_map(load, range(50), meta=pd.DataFrame({"B2": np.empty(0, "f4")}))
    bucket.proxy.disturb(1, Call(slow), matching=lambda request: request.kind == "begin")
    result = export_table(lazy, f"{bucket.url}/t", storage_options=bucket.options)
    local = export_table(lazy, tmp_path / "t")
    assert counts[0] <= 2 * CPU_COUNT
    assert result.file.crc32c == local.file.crc32c


def test_dataset_with_a_row_dimension(tmp_path):
    rng = np.random.default_rng(0)
    values, series = rng.random(100), rng.random((5, 100)).astype("f4")
    ds = xr.Dataset(
        {
            "B2": ("site", values),
            "ndvi": (("time", "site"), series),
            "name": ("site", [f"s{i}" for i in range(100)]),
        },
        coords={"site": np.arange(100) * 10, "longitude": ("site", values), "spatial_ref": 0},
    )
    eager = export_table(ds, tmp_path / "eager")
    lazy = export_table(ds.chunk(site=30, time=2), tmp_path / "lazy")
    assert eager.shapes == lazy.shapes == {"ndvi": (5,)}
    expected = [
        example({"B2": values[i], "ndvi": series[:, i], "name": f"s{i}", "longitude": values[i]})
        for i in range(100)
    ]
    assert_same(records(eager.path), expected)
    assert_same(records(lazy.path), expected)


def test_each_chunk_of_a_dataset_is_loaded_once(tmp_path):
    seen = []

    def load(block, block_info=None):
        seen.append(block_info[0]["chunk-location"])
        return block

    array = da.zeros((1000, 4), chunks=(100, 2)).map_blocks(load, meta=np.empty((0, 0)))
    ds = xr.Dataset({"ndvi": (("site", "time"), array), "B2": ("site", np.zeros(1000))})
    result = export_table(ds, tmp_path / "t")
    assert sorted(seen) == [(i, j) for i in range(10) for j in range(2)]
    assert result.shapes == {"ndvi": (4,)}


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633"])
def test_points_are_exported_as_longitude_and_latitude(tmp_path, crs):
    lon, lat = np.array([13.5, 15.0]), np.array([45.0, 46.5])
    points = gpd.GeoSeries(gpd.points_from_xy(lon, lat), crs="EPSG:4326").to_crs(crs)
    frame = gpd.GeoDataFrame({"B2": [1.0, 2.0]}, geometry=points)
    found = open_table(export_table(frame, tmp_path / "all").path)
    assert list(found.columns) == ["B2", "longitude", "latitude"]
    np.testing.assert_allclose(found.longitude, lon, atol=1e-6)
    np.testing.assert_allclose(found.latitude, lat, atol=1e-6)
    none = open_table(export_table(frame, tmp_path / "none", geometry=None).path)
    assert list(none.columns) == ["B2"]
    some = open_table(export_table(frame, tmp_path / "some", ["latitude", "B2"]).path)
    assert list(some.columns) == ["latitude", "B2"]


def test_rounded_integers_give_a_warning(tmp_path):
    frame = pd.DataFrame({"id": [1, 2**24 + 1], "fine": [1, 2**30]})
    with pytest.warns(UserWarning, match=r"'id' hold integers that float32 cannot represent"):
        export_table(frame, tmp_path / "t")


@pytest.mark.parametrize("dtype", ["float64", "Int64"])
def test_rounded_integers_beside_missing_ones_give_a_warning(tmp_path, dtype):
    frame = pd.DataFrame({"area": [2.0**24 + 0.5, 1.0], "id": pd.array([2**24 + 3, None], dtype=dtype)})
    with pytest.warns(UserWarning, match=r"columns 'id' hold integers that float32 cannot represent"):
        assert export_table(frame, tmp_path / "t").rounded == ("id",)


def test_columns_are_a_list_of_names(tmp_path):
    frame = pd.DataFrame({"B2": [1, 2], "B3": [3, 4]})
    with pytest.raises(OptionError, match=r"columns must be a list of names, .*; got 3"):
        export_table(frame, tmp_path / "t", columns=3)
    path = export_table(frame, tmp_path / "t").path
    with pytest.raises(OptionError, match=r"columns must be a list of names, .*; got True"):
        open_table(path, columns=True)
    for options in ({"selectors": ["B3"]}, {"bands": "B3"}):
        assert list(open_table(path, **options)) == ["B3"]
    with pytest.raises(OptionError, match="got a DataFrame"):
        open_table(frame)


def test_file_names_and_existing_files(tmp_path):
    frame = table(3)
    first = export_table(frame, tmp_path / "t.tfrecord.gz")
    assert first.path == str(tmp_path / "t.tfrecord.gz")
    with pytest.raises(DestinationExistsError, match="if_exists='overwrite'"):
        export_table(frame, tmp_path / "t")
    export_table(frame[:2], tmp_path / "t", if_exists="overwrite", progress=True)
    assert len(open_table(tmp_path / "t")) == 2


def test_damaged_table_is_not_resumed(tmp_path):
    frame = table(100)
    file = Path(export_table(frame, tmp_path / "t", if_exists="resume").path)
    assert export_table(frame, tmp_path / "t", if_exists="resume").path == str(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DestinationExistsError, match="has 100 bytes instead of"):
        export_table(frame, tmp_path / "t", if_exists="resume")


def test_object_store(tmp_path):
    frame = table(300)
    result = export_table(frame, "memory://tables/t")
    local = export_table(frame, tmp_path / "t")
    assert result.file.crc32c == local.file.crc32c
    pd.testing.assert_frame_equal(open_table("memory://tables/t"), open_table(local.path))
    upload_table(
        "memory://tables/t", "memory://tables/t.parquet", x_column="B2", y_column="B3", columns=["name"]
    )
    files = fsspec.filesystem("memory").ls("/tables", detail=False)
    assert sorted(files) == ["/tables/t-table.tfexport", "/tables/t.parquet", "/tables/t.tfrecord.gz"]


# -- Errors -------------------------------------------------------------------------------------------

points = gpd.points_from_xy([13, 14, 15], [45, 46, 47])
three = {"B2": [1.0, 2.0, 3.0]}

INVALID = {
    "unknown columns": (
        pd.DataFrame(three), {"columns": ["B2", "B9"]}, r"Columns 'B9' not found; available: 'B2'"
    ),
    "duplicate columns": (
        pd.DataFrame([[1, 2]], columns=["B2", "B2"]), {}, "More than one column is named 'B2'"
    ),
    "integer name": (pd.DataFrame([[1, 2]]), {}, "name must be a string; got 0"),
    "dates": (pd.DataFrame({"day": pd.date_range("2020", periods=3)}), {}, "'day' holds datetime64"),
    "complex numbers": (pd.DataFrame({"z": [1j]}), {}, "'z' holds complex128"),
    "objects": (pd.DataFrame({"o": [object()]}), {}, "'o' holds object"),
    "arrays of strings": (pd.DataFrame({"o": [["a"], ["b"]]}), {}, "'o' holds arrays of"),
    "mixed shapes": (
        pd.DataFrame({"p": [[1, 2], [3, 4], [5, 6, 7]]}, index=["a", "b", "c"]),
        {},
        r"'p': row 2 \(index 'c'\) holds an array of shape \(3,\).*shape \(2,\)",
    ),
    "missing array": (pd.DataFrame({"p": [[1, 2], None]}), {}, "'p': row 1 holds NoneType None"),
    "mixed": (pd.DataFrame({"m": ["a", 1.5]}, dtype=object), {}, "'m': row 1 holds float.*expected a s"),
    "string after a number": (pd.DataFrame({"m": [1.5, "a"]}, dtype=object), {}, "'m': row 1 .*expected a n"),
    "invalid UTF-8": (pd.DataFrame({"m": ["a", "\ud800"]}, dtype=object), {}, "'m': row 1"),
    "only missing values": (pd.DataFrame({"m": [None, None]}, dtype=object), {}, "only missing values"),
    "no rows": (pd.DataFrame({"B2": []}), {}, "no rows"),
    "no columns": (pd.DataFrame(index=[1, 2]), {}, "no columns"),
    "invalid geometry option": (pd.DataFrame(three), {"geometry": "wkt"}, "'lonlat' or None; got 'wkt'"),
    "no geometry": (
        gpd.GeoDataFrame(three, geometry=[points[0], None, None], crs=4326), {},
        r"Row 1 has no geometry.*2 such",
    ),
    "polygons": (
        gpd.GeoDataFrame(three, geometry=points.buffer(1), crs=4326), {}, "Row 0 has a Polygon"
    ),
    "column named longitude": (
        gpd.GeoDataFrame({**three, "longitude": 1.0}, geometry=points, crs=4326), {},
        r"already has columns 'longitude'",
    ),
    "second geometry column": (
        gpd.GeoDataFrame({"g": gpd.GeoSeries(points)}, geometry=points, crs=4326), {}, "'g' holds geometry"
    ),
    "raster": (xr.Dataset({"B2": (("y", "x"), np.zeros((2, 2)))}), {}, r"\('y', 'x'\).*stack"),
    "variable without the row dimension": (
        xr.Dataset({"a": ("site", [1.0]), "b": ("site", [1.0]), "c": (("t", "u"), [[1.0]])}), {}, r"\['c'\]"
    ),
    "array": (np.zeros(3), {}, "got ndarray"),
    "series": (pd.Series([1.0]), {}, "to_frame"),
    "invalid if_exists": (pd.DataFrame(three), {"if_exists": "replace"}, "got 'replace'"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_invalid_tables_are_rejected_before_writing(tmp_path, case):
    frame, options, message = INVALID[case]
    with pytest.raises(OptionError, match=f"(?s){message}"):
        export_table(frame, tmp_path / "t", **options)
    assert not list(tmp_path.iterdir())


def test_points_without_crs(tmp_path):
    with pytest.raises(GeoreferenceError, match="set_crs"):
        export_table(gpd.GeoDataFrame(three, geometry=points), tmp_path / "t")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            [[1, 2]] * 5 + [[1]] * 3,
            r"'p': row 5 \(the first row of partition 2\).*\(1,\).*before it hold.*\(2,\)",
        ),
        ([[1, 2]] * 4 + [[1]] + [[1, 2]] * 3, r"'p': row 1 \(index 4\) of partition 1 holds .*\(1,\)"),
        (
            ["a"] * 6 + [1.0] * 2,
            r"'p': row 6 \(the first row of partition 2\) holds numbers, but the rows before it hold str",
        ),
    ],
    ids=["between partitions", "within a partition", "kinds"],
)
def test_invalid_rows_of_a_dask_frame(tmp_path, bad, message):
    frame = pd.DataFrame({"p": pd.Series(bad, dtype=object)})
    parts = [frame[:3], frame[3:5], frame[5:]] if len(bad[0]) == 2 else [frame[:3], frame[3:6], frame[6:]]
    with dask.config.set({"dataframe.convert-string": False}):
        lazy = dd.from_map(lambda number: parts[number], range(3), meta=frame[:0])
    with pytest.raises(OptionError, match=f"(?s){message}"):
        export_table(lazy, tmp_path / "t")
    assert not list(tmp_path.iterdir())


# -- Reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "TensorFlow's"])
@pytest.mark.parametrize("strings", [False, True], ids=["numbers", "with strings"])
def test_exported_tables_are_read_back(tmp_path, foreign, strings):
    frame = table(5000) if strings else table(5000)[["B2", "landcover"]]
    path = tmp_path / "t.tfrecord.gz"
    if foreign:
        write_examples(path, rows_of(frame[:200]))
        frame = frame[:200]
    else:
        export_table(frame, path)
    expected = frame.astype({"B2": "f4", "landcover": "f4"})
    shapes = {"patch": (3, 2)} if strings else None
    found = open_table(path, list(frame.columns), shapes=shapes)
    pd.testing.assert_frame_equal(found, expected)
    lazy = open_table(path, list(frame.columns), shapes=shapes, chunks=77)
    assert lazy.npartitions == -(-len(frame) // 77)
    assert lazy.dtypes.equals(expected.dtypes)
    pd.testing.assert_frame_equal(lazy.compute(scheduler="sync"), expected)
    pd.testing.assert_frame_equal(lazy.partitions[1].compute(), expected[77:154])


def test_multiple_files_with_integers_and_lists(tmp_path):
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.tfrecord")
        with tf.io.TFRecordWriter(str(paths[-1])) as writer:
            for row in range(4):
                feature = {
                    "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[2**40 + row])),
                    "names": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a", b"b"])),
                    "B2": tf.train.Feature(float_list=tf.train.FloatList(value=[number])),
                }
                data = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(data.SerializeToString())
    found = open_table(paths, ["id", "names", "B2"])
    assert found["id"].tolist() == [2**40 + row for row in range(4)] * 3
    assert found["names"].tolist() == [[b"a", b"b"]] * 12
    assert found["B2"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_record_of_another_kind(tmp_path):
    usual = {"B2": 0.5, "name": "abc"}
    odd = {"B2": "1.0", "name": "x"}
    path = write_examples(tmp_path / "t.tfrecord.gz", [usual] * 7 + [odd] + [usual] * 3)
    with pytest.raises(RecordError, match=r"t.tfrecord.gz: record 7: .*'B2' holds 1 byte string"):
        open_table(path)


@pytest.mark.parametrize("strings", [False, True])
def test_corrupt_record(tmp_path, strings):
    frame = table(100)[["B2", "name"] if strings else ["B2", "B3"]]
    data = bytearray(gzip.decompress(Path(export_table(frame, tmp_path / "t").path).read_bytes()))
    data[len(data) // 2] ^= 1
    path = tmp_path / "bad.tfrecord"
    path.write_bytes(data)
    with pytest.raises(RecordError, match=r"bad.tfrecord: record \d\d is corrupt"):
        open_table(path)


def test_errors_when_reading(tmp_path):
    path = export_table(table(5), tmp_path / "t").path
    with pytest.raises(OptionError, match=r"Columns 'B9' not found; available: 'B2'"):
        open_table(path, ["B9"])
    with pytest.raises(OptionError, match=r"6 values per row, which cannot be reshaped to \(2, 2\)"):
        open_table(path, shapes={"patch": (2, 2)})
    with pytest.raises(OptionError, match="'name', which is not a numeric column"):
        open_table(path, shapes={"name": (2, 2)})
    with pytest.raises(OptionError, match="chunks"):
        open_table(path, chunks=0)
    with pytest.raises(MissingShardError, match=r"nowhere or .*nowhere.tfrecord.gz"):
        open_table(tmp_path / "nowhere")
    write_examples(tmp_path / "latin.tfrecord.gz", [{"n": b"abc"}, {"n": b"\xe9t\xe9"}])
    with pytest.raises(RecordError, match=r"latin.tfrecord.gz: record 1: feature 'n' .*not utf-8"):
        open_table(tmp_path / "latin")
    assert open_table(tmp_path / "latin", encoding="latin-1")["n"].tolist() == ["abc", "été"]
    write_examples(tmp_path / "empty.tfrecord.gz", [])
    with pytest.raises(RecordError, match=r"empty.tfrecord.gz contains no records"):
        open_table(tmp_path / "empty")


# -- Upload -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["points.parquet", "points.gpkg"])
def test_records_are_uploaded_as_points(tmp_path, name):
    frame = pd.DataFrame({"easting": [5e5, 5e5 + 30], "northing": [5e6, 5e6 + 60], "name": ["a", "b"]})
    path = export_table(frame, tmp_path / "t").path
    file = upload_table(path, tmp_path / name, crs="EPSG:32633", x_column="easting", y_column="northing")
    found = gpd.read_parquet(file.url) if name.endswith("parquet") else gpd.read_file(file.url)
    assert found.crs == "EPSG:32633"
    np.testing.assert_array_equal(found.geometry.x, frame.easting)
    np.testing.assert_array_equal(found.geometry.y, frame.northing)
    assert found["name"].tolist() == ["a", "b"]
    assert sorted(each.name for each in tmp_path.iterdir()) == [name, "t-table.tfexport", "t.tfrecord.gz"]


def test_round_trip_of_points(tmp_path):
    frame = gpd.GeoDataFrame({"p": [[1.0, 2.0]] * 3}, geometry=points, crs=4326)
    path = export_table(frame, tmp_path / "t").path
    found = gpd.read_parquet(upload_table(path, tmp_path / "p.parquet").url)
    assert found.geometry.geom_equals(frame.geometry).all()
    np.testing.assert_array_equal(np.stack(found.p), np.stack(frame.p))


@pytest.mark.parametrize(
    ("destination", "options", "error", "message"),
    [
        ("p.shp", {}, OptionError, r"Unknown output format .*p.shp: use .* .parquet .* or .gpkg"),
        ("p.gpkg", {"crs": "EPSG:32633"}, OptionError, "projected.*x_column"),
        ("p.gpkg", {"x_column": "east"}, OptionError, r"'east' not found; available: 'B2', 'longitude'"),
        ("p.gpkg", {}, OptionError, r"not support arrays, but 'patch'"),
        ("p.gpkg", {"x_column": "patch"}, OptionError, "'patch' cannot be .*: expected one number per row"),
        ("p.parquet", {"x_column": "B2"}, RecordError, "Record 1 has no coordinates: B2 is nan"),
        ("p.parquet", {"crs": "nonsense"}, GeoreferenceError, "nonsense"),
        ("t.parquet", {}, DestinationExistsError, "if_exists"),
    ],
)
def test_upload_errors(tmp_path, destination, options, error, message):
    frame = pd.DataFrame(
        {"B2": [1.0, np.nan], "longitude": [1.0, 2.0], "latitude": [1.0, 2.0], "patch": [[1, 2], [3, 4]]}
    )
    path = export_table(frame, tmp_path / "t").path
    (tmp_path / "t.parquet").touch()
    with pytest.raises(error, match=message):
        upload_table(path, tmp_path / destination, **options)


# -- Field sites --------------------------------------------------------------------------------------


def test_model_trained_on_a_table_of_field_sites(data_dir, tmp_path):
    sites = pd.read_json(data_dir / "fractionalcover3" / "pkgdata" / "training_data.json")
    bands, covers = ["b2", "b3", "b4", "b5", "b7"], ["pv", "npv", "bare"]
    sites = sites.sample(frac=1, random_state=0)
    split = len(sites) * 4 // 5
    training = export_table(sites[:split], tmp_path / "training", [*bands, *covers])
    test = export_table(sites[split:], tmp_path / "test", [*bands, *covers])
    assert training.records + test.records == 3937
    spec = {name: tf.io.FixedLenFeature(shape=[1], dtype=tf.float32) for name in [*bands, *covers]}

    def parsed(path):
        rows = tf.data.TFRecordDataset(path, compression_type="GZIP").batch(256)
        rows = rows.map(lambda data: tf.io.parse_example(data, spec))
        return rows.map(
            lambda row: (
                tf.concat([row[name] for name in bands], 1),
                tf.concat([row[name] for name in covers], 1),
            )
        )

    tf.keras.utils.set_random_seed(0)
    scale = tf.keras.layers.Normalization()
    scale.adapt(parsed(training.path).map(lambda x, y: x))
    model = tf.keras.Sequential(
        [
            scale,
            tf.keras.layers.Dense(64, "relu"),
            tf.keras.layers.Dense(64, "relu"),
            tf.keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile(tf.keras.optimizers.Adam(3e-3), "mse")
    batches = parsed(training.path).unbatch().cache().shuffle(4000, seed=0).batch(128)
    batches = batches.apply(tf.data.experimental.assert_cardinality(-(-split // 128)))
    model.fit(batches, epochs=40, shuffle=False, verbose=0)
    inputs, wanted = map(np.concatenate, zip(*parsed(test.path).as_numpy_iterator(), strict=True))
    found = model.predict(inputs, batch_size=1000, verbose=0)
    np.testing.assert_allclose(wanted, sites[split:][covers].to_numpy("f4"))
    r2 = 1 - ((wanted - found) ** 2).sum(0) / ((wanted - wanted.mean(0)) ** 2).sum(0)
    print(f"R2 of {dict(zip(covers, r2.round(3).tolist(), strict=True))}")
    assert r2.mean() > 0.55  # a random forest has 0.67 to 0.70


def test_export_does_not_loop_over_rows_in_python(tmp_path):
    """A loop over protobuf objects takes twenty times as long as this limit."""
    frame = pd.DataFrame(np.random.default_rng(0).random((200_000, 10)), columns=[f"B{i}" for i in range(10)])
    export_table(frame[:1000], tmp_path / "warm")
    start = time.process_time()
    export_table(frame, tmp_path / "t")
    assert time.process_time() - start < 1
