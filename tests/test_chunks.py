"""Tests of chunks that are not what Dask declares."""

import pickle
from functools import partial

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from distributed import Client, LocalCluster
from xarray.backends import BackendArray
from xarray.core import indexing

import xee_tf
from tests.rasters import CRS, raster
from xee_tf.chunks import check_chunks

CHUNK = 16


def wrong_band(declared, wrong, steps=None):
    """Return a band of 32 x 48 pixels in which the chunk (1, 2) has another shape or dtype."""

    def load(block_info=None):
        *_, row, column = block_info[None]["chunk-location"]
        lead = () if steps is None else (steps,)
        found = {"shape": (*lead, CHUNK, CHUNK), "dtype": declared, "value": 3, "kind": np.asarray}
        if (row, column) == (1, 2):
            found |= wrong
        return found["kind"](np.full(found["shape"], found["value"], found["dtype"]))

    chunks = ((CHUNK,) * 2, (CHUNK,) * 3)
    if steps is not None:
        chunks = ((steps,), *chunks)
    return da.map_blocks(load, chunks=chunks, dtype=declared, meta=np.empty((0,) * len(chunks), declared))


def image_with(band):
    image = raster({"good": np.zeros((32, 48), band.dtype)}).chunk(y=CHUNK, x=CHUNK)
    return image.assign(B4=(("time", "y", "x")[-band.ndim :], band))


def export(image, path):
    image.tfexport(path / "scene", patch_dimensions=CHUNK)


def export_with_overlap(image, path):
    image.tfexport(path / "scene", patch_dimensions=20, kernel_size=5)


def predict(image, path):
    model = xee_tf.Model.from_function(
        lambda tiles: tiles[..., 0], input_tile_size=CHUNK, bands=["good", "B4"], output_bands=["p"]
    )
    model.predict_image(image, merge=False).compute()


WRONG = [
    ("u2", {"dtype": "f4"}, r"has the dtype float32 instead of uint16"),
    ("u1", {"dtype": "i8", "value": -1}, r"has the dtype int64 instead of uint8"),
    ("f4", {"dtype": "f8", "value": 1e300}, r"has the dtype float64 instead of float32"),
    ("i2", {"dtype": "U1", "value": "a"}, r"has the dtype <U1 instead of int16"),
    ("f4", {"shape": (CHUNK, 1)}, r"has the shape \(16, 1\) instead of \(16, 16\)"),
    ("f4", {"shape": (CHUNK + 1, CHUNK)}, r"has the shape \(17, 16\) instead of \(16, 16\)"),
    ("f4", {"kind": np.max}, r"is a float32 instead of a numpy array"),
    ("f4", {"kind": np.ma.masked_array}, r"is a MaskedArray instead of a numpy array"),
    ("f4", {"kind": np.ndarray.tolist}, r"is a list instead of a numpy array"),
    ("f4", {"shape": (1, CHUNK, CHUNK)}, r"has the shape \(1, 16, 16\) instead of \(16, 16\)"),
]


@pytest.mark.parametrize(("declared", "wrong", "message"), WRONG)
@pytest.mark.parametrize("use", [export, export_with_overlap, predict])
def test_wrong_chunks_are_named(tmp_path, use, declared, wrong, message):
    image = image_with(wrong_band(declared, wrong))
    where = r"Band 'B4': chunk \(1, 2\), with the rows 16 to 31 and the columns 32 to 47, "
    with pytest.raises(xee_tf.ChunkError, match=where + message):
        use(image, tmp_path)
    assert not list(tmp_path.iterdir())


def test_wrong_chunks_of_array_bands_are_named(tmp_path):
    image = image_with(wrong_band("f4", {"shape": (3, CHUNK, 1)}, steps=3))
    with pytest.raises(xee_tf.ChunkError, match=r"B4.*shape \(3, 16, 1\) instead of \(3, 16, 16\)"):
        export(image, tmp_path)


@pytest.mark.parametrize(("declared", "found"), [("f4", "u1"), ("i2", ">i2"), ("f8", "f4"), ("u2", "?")])
def test_chunks_in_a_narrower_dtype_are_converted(tmp_path, declared, found):
    image = image_with(wrong_band(declared, {"dtype": found}))
    same = image.assign(B4=image.B4.compute().astype(declared).chunk(y=CHUNK, x=CHUNK))
    for name, each in {"found": image, "same": same}.items():
        each.tfexport(tmp_path / name, patch_dimensions=CHUNK)
    found, same = (
        [shard.read_bytes() for shard in sorted(tmp_path.glob(f"{name}-*.tfrecord*"))]
        for name in ("found", "same")
    )
    assert found == same


def test_pixels_of_a_wrong_chunk_are_not_sampled(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    image = image_with(wrong_band("u1", {"dtype": "i4"}))
    points = geopandas.GeoDataFrame(
        geometry=geopandas.points_from_xy(image.x[[1, 40]], image.y[[1, 20]]), crs=image.attrs["crs"]
    )
    with pytest.raises(xee_tf.ChunkError, match=r"'B4'.*int32 instead of uint8"):
        image.tfexport.table(points, tmp_path / "table")


KINDS = {
    "subclass": lambda chunk: chunk.view(type("Special", (np.ndarray,), {})),
    "matrix": lambda chunk: chunk.view(np.matrix) if chunk.ndim == 2 else chunk,
    "strided": lambda chunk: np.repeat(chunk, 2, -1)[..., ::2],
    "reversed": lambda chunk: chunk[..., ::-1].copy()[..., ::-1],
    "read-only": lambda chunk: np.broadcast_to(chunk, chunk.shape),
    "swapped": lambda chunk: chunk.astype(chunk.dtype.newbyteorder(">")),
    "narrower": lambda chunk: chunk.astype("u1"),
    # All of the above are right, all of the following wrong.
    "masked": lambda chunk: np.ma.masked_array(chunk, chunk > 5),
    "object": lambda chunk: chunk.astype(object),
    "list": np.ndarray.tolist,
    "None": lambda chunk: None,
    "scalar": lambda chunk: chunk.flat[0],
    "0-d": lambda chunk: chunk.flat[0].reshape(()) if hasattr(chunk.flat[0], "reshape") else np.array(1),
    "first": lambda chunk: chunk[:1],
    "longer": lambda chunk: np.concatenate([chunk, chunk]),
    "empty": lambda chunk: chunk[:0],
    "nested": lambda chunk: chunk[None],
    "reshaped": lambda chunk: chunk.reshape(-1, 2),
    "wider": lambda chunk: chunk + np.array(1e300),
    "bytes": lambda chunk: chunk.astype("S"),
    "dates": lambda chunk: chunk.astype("M8[s]") if chunk.dtype.kind == "i" else chunk.astype(complex),
    "structured": lambda chunk: np.zeros(chunk.shape, "i4,i4"),
    "dask": da.from_array,
}
RIGHT = list(KINDS)[: list(KINDS).index("masked")]
SOME = [
    ["matrix", "swapped", "masked", "first", "wider"],
    pytest.param(sorted(KINDS), marks=pytest.mark.long, id="all"),
]


def changed_band(dtype, kind, steps=None):
    """Return a band in which one chunk is changed, and its right values."""
    shape, chunks = (32, 48), ((CHUNK,) * 2, (CHUNK,) * 3)
    if steps is not None:
        shape, chunks = (steps, *shape), ((steps,), *chunks)
    right = np.random.default_rng(0).integers(1, 9, shape).astype(dtype)

    def load(block_info=None):
        *_, row, column = block_info[None]["chunk-location"]
        chunk = right[..., row * CHUNK :, column * CHUNK :][..., :CHUNK, :CHUNK].copy()
        return KINDS[kind](chunk) if (row, column) == (1, 2) else chunk

    return da.map_blocks(load, chunks=chunks, dtype=dtype, meta=np.empty((0,) * len(chunks), dtype)), right


def exported(image, path, **options):
    image.tfexport(path / "scene", patch_dimensions=CHUNK, **options)
    return xee_tf.open_image(path / "scene-mixer.json").B4.values


def predicted(image, path):
    model = xee_tf.Model.from_function(
        lambda tiles: tiles[..., 0],
        input_tile_size=CHUNK,
        bands=["B4"],
        output_bands={"p": {"type": "double"}},
    )
    xee_tf.predict_to_zarr(model, image, path / "p.zarr")
    return xr.open_zarr(path / "p.zarr", consolidated=False).p.values


def as_geotiff(image, path):
    xee_tf.to_cog(image[["B4"]], path / "b.tif")
    with rasterio.open(path / "b.tif") as file:
        return file.read(1)


USES = {
    "export": exported,
    "compressed": partial(exported, compressed=True, kernel_size=3),
    "by band": partial(exported, compressed=False, feature_types="band"),
    "predict": predicted,
    "GeoTIFF": as_geotiff,
}


def sampled(image, path):
    geopandas = pytest.importorskip("geopandas")
    points = geopandas.points_from_xy(*(axis.ravel() for axis in np.meshgrid(image.x, image.y)))
    rows = geopandas.GeoDataFrame(geometry=points, crs=image.attrs["crs"])
    image.tfexport.table(rows, path / "rows")
    return xee_tf.open_table(path / "rows.tfrecord.gz").B4.to_numpy().reshape(32, 48)


def refused_or_right(use, right):
    """Return the values of a use, or the text of its ChunkError."""
    try:
        values = use()
    except xee_tf.ChunkError as error:
        return str(error)
    np.testing.assert_array_equal(values, right)
    return None


@pytest.mark.parametrize("kinds", SOME)
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("dtype", ["f4", "i2"])
def test_any_chunk_is_right_or_refused(tmp_path, use, dtype, kinds):
    for kind in kinds:
        band, right = changed_band(dtype, kind)
        (folder := tmp_path / kind).mkdir()
        message = refused_or_right(lambda: USES[use](image_with(band), folder), right)  # noqa: B023
        assert (message is None) == (kind in RIGHT)
        assert message is None or message.startswith(("Band 'B4': chunk (1, 2)", "Band 'B4': the chunk at"))


@pytest.mark.parametrize("kinds", SOME)
@pytest.mark.parametrize("options", [{}, {"sequence_data": True, "drop_masked_steps": True}])
def test_any_chunk_of_an_array_band_is_right_or_refused(tmp_path, options, kinds):
    for kind in kinds:
        band, right = changed_band("f4", kind, steps=3)
        (folder := tmp_path / kind).mkdir()
        use = partial(exported, image_with(band), folder, tensor_depths={"B4": 3}, **options)
        message = refused_or_right(use, right)
        assert (message is None) == (kind in RIGHT)
        assert message is None or message.startswith(
            "Band 'B4': chunk (0, 1, 2), with time 0 to 2, y 16 to 31 and x 32 to 47, "
        )


def changed_steps(kind, chunk):
    """Return a band of 4 steps in which one chunk, with `chunk` steps, is changed, and its right values."""
    right = np.random.default_rng(0).integers(1, 9, (4, 32, 48)).astype("f4")
    chunks = ((chunk,) * (4 // chunk), (CHUNK,) * 2, (CHUNK,) * 3)

    def load(block_info=None):
        step, row, column = block_info[None]["chunk-location"]
        part = right[step * chunk :, row * CHUNK :, column * CHUNK :][:chunk, :CHUNK, :CHUNK].copy()
        return KINDS[kind](part) if (step, row, column) == (0, 1, 2) else part

    return da.map_blocks(load, chunks=chunks, dtype="f4", meta=np.empty((0, 0, 0), "f4")), right


def exported_by_step(image, path):
    image.tfexport(path / "scene", patch_dimensions=CHUNK, split_dim="time")
    return np.stack([xee_tf.open_image(file).B4.values for file in sorted(path.glob("*-mixer.json"))])


def exported_bands(image, path):
    image.tfexport(path / "scene", patch_dimensions=CHUNK)
    return xee_tf.open_image(path / "scene-mixer.json").to_dataarray().values


def sampled_bands(image, path):
    geopandas = pytest.importorskip("geopandas")
    points = geopandas.points_from_xy(*(axis.ravel() for axis in np.meshgrid(image.x, image.y)))
    image.tfexport.table(geopandas.GeoDataFrame(geometry=points, crs=CRS), path / "rows")
    rows = xee_tf.open_table(path / "rows.tfrecord.gz")
    return np.stack([rows[f"B{number}"].to_numpy().reshape(32, 48) for number in (1, 2, 3, 4)])


def predicted_bands(image, path):
    model = xee_tf.Model.from_function(
        lambda tiles: tiles, input_tile_size=CHUNK, output_bands={"p": {"type": "float", "shape": [4]}}
    )
    return model.predict_image(image, merge=False).p.values


def geotiff_of_bands(image, path):
    xee_tf.to_cog(image, path / "b.tif")
    with rasterio.open(path / "b.tif") as file:
        return file.read()


SELECTIONS = {
    "split_dim": ("time", exported_by_step),
    "predict each step": ("time", predicted),
    "export bands": ("band", exported_bands),
    "sample bands": ("band", sampled_bands),
    "predict bands": ("band", predicted_bands),
    "GeoTIFF": ("band", geotiff_of_bands),
}


@pytest.mark.parametrize(
    "kinds",
    [["swapped", "nested", "first", "longer", "scalar", "list", "wider"], *SOME[1:]],
    ids=("some", "all"),
)
@pytest.mark.parametrize("chunk", [2, 4])
@pytest.mark.parametrize("use", SELECTIONS)
def test_chunks_are_checked_before_steps_and_bands_are_selected(tmp_path, use, chunk, kinds):
    dim, function = SELECTIONS[use]
    for kind in kinds:
        steps, right = changed_steps(kind, chunk)
        image = raster({"B4": right[0]}).B4.expand_dims({dim: 4}).copy(data=steps).assign_attrs(crs=CRS)
        (folder := tmp_path / kind).mkdir()
        message = refused_or_right(lambda: function(image, folder), right)  # noqa: B023
        assert (message is None) == (kind in RIGHT)
        where = f"Band 'B4': chunk (0, 1, 2), with {dim} 0 to {chunk - 1}, y 16 to 31 and x 32 to 47, "
        assert message is None or message.startswith(where)


def checked(chunk):
    return chunk[:1]


def test_functions_of_any_name_are_checked(tmp_path):
    """Dask names an array after the function."""
    steps = da.ones((4, 32, 48), chunks=(2, CHUNK, CHUNK), dtype="f4").map_blocks(checked, dtype="f4")
    image = raster({"B4": np.ones((32, 48), "f4")}).assign(B4=(("time", "y", "x"), steps))
    with pytest.raises(xee_tf.ChunkError, match=r"shape \(1, 16, 16\) instead of \(2, 16, 16\)"):
        exported_by_step(image, tmp_path)


def test_tasks_do_not_hold_the_lengths_of_all_chunks():
    check = check_chunks(xr.Variable(("time", "y", "x"), da.zeros((9000, 4, 4), chunks=1)), "Band", axes=2)
    (function,) = {layer.task.func for layer in check.data.dask.layers.values() if "checked" in layer.output}
    assert len(pickle.dumps(function)) < 1000


class Unread(BackendArray):
    """A file that must not be read."""

    shape, dtype = (3, 32, 48), np.dtype("f4")

    def __getitem__(self, key):
        raise AssertionError("read")


@pytest.mark.parametrize("dim", ["time", "band"])
@pytest.mark.parametrize("form", ["DataArray", "Dataset"])
def test_arrays_without_chunks_are_not_loaded(dim, form):
    coords = raster({"B4": np.zeros((32, 48), "f4")}).coords
    lazy = xr.Variable((dim, "y", "x"), indexing.LazilyIndexedArray(Unread()))
    image = xr.DataArray(lazy, coords, name="B4")
    image = image if form == "DataArray" else image.to_dataset()
    assert xee_tf.plan_export(image.assign_attrs(crs=CRS), patch_dimensions=CHUNK).records == 6
    model = xee_tf.Model.from_function(lambda tiles: tiles[..., 0], input_tile_size=CHUNK, output_bands=["p"])
    predicted = model.predict_image(image.assign_attrs(crs=CRS), merge=False)
    with pytest.raises(AssertionError, match="read"):
        predicted.compute()


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster


@pytest.mark.long
@pytest.mark.parametrize("use", [*USES, "sample"])
@pytest.mark.parametrize("kind", ["swapped", "masked", "first", "wider", "None", "dates"])
def test_any_chunk_is_right_or_refused_on_a_cluster(cluster, tmp_path, use, kind):
    band, right = changed_band("f4", kind)
    function = sampled if use == "sample" else USES[use]
    with Client(cluster):
        message = refused_or_right(lambda: function(image_with(band), tmp_path), right)
    assert (message is None) == (kind in RIGHT)
    assert message is None or message.startswith(("Band 'B4': chunk (1, 2)", "Band 'B4': the chunk at"))


def changed_column(dtype, kind, shape=()):
    """Return a Dask array of 12 rows whose second chunk is changed, and its right values."""
    right = np.random.default_rng(0).integers(1, 9, (12, *shape)).astype(dtype)

    def load(block_info=None):
        number = block_info[None]["chunk-location"][0]
        chunk = right[4 * number : 4 * number + 4].copy()
        return KINDS[kind](chunk) if number == 1 else chunk

    chunks = ((4,) * 3, *((length,) for length in shape))
    return da.map_blocks(load, chunks=chunks, dtype=dtype, meta=np.empty((0,) * len(chunks), dtype)), right


def table_of(column, path):
    rows = xr.Dataset({"p": (("row", "value")[: column.ndim], column), "id": ("row", np.arange(12.0))})
    xee_tf.export_table(rows, path / "t")
    values = xee_tf.open_table(path / "t.tfrecord.gz").p
    return values.to_numpy() if column.ndim == 1 else np.stack(values)


@pytest.mark.parametrize("kinds", SOME)
@pytest.mark.parametrize("dtype", ["f4", "i2"])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_any_chunk_of_a_table_is_right_or_refused(tmp_path, dtype, shape, kinds):
    pytest.importorskip("pyarrow")
    for kind in kinds:
        column, right = changed_column(dtype, kind, shape)
        (folder := tmp_path / kind).mkdir()
        message = refused_or_right(lambda: table_of(column, folder), right)  # noqa: B023
        assert (message is None) == (kind in RIGHT)
        assert message is None or message.startswith(
            "Column 'p': chunk (1, 0), with row 4 to 7 and value 0 to 3, "
            if shape
            else "Column 'p': chunk 1, with the rows 4 to 7, "
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="b"), "Partition 1 .* exactly one column named 'b', .*columns 'a'"),
        (lambda frame: frame.rename(columns={"a": "c"}), "named 'a'.* it has the columns 'c', 'b'"),
        (lambda frame: frame[["a", "b", "b"]], "exactly one column named 'b'"),
        (lambda frame: frame.a, "is a Series instead of a DataFrame"),
        (lambda frame: None, "is a NoneType instead of a DataFrame"),
        (lambda frame: frame.to_numpy(), "is a ndarray instead of a DataFrame"),
    ],
)
@pytest.mark.parametrize("predict", [False, True])
def test_partitions_that_are_not_as_declared_are_named(tmp_path, change, message, predict):
    dataframe = pytest.importorskip("dask.dataframe")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [5.0, 6, 7, 8]})

    def load(part):
        return change(part) if part.a.iloc[0] == 3 else part

    table = dataframe.from_pandas(frame, npartitions=2)
    table = table.map_partitions(load, meta=frame.iloc[:0], enforce_metadata=False)
    if predict:
        model = xee_tf.Model.from_function(
            lambda rows: rows.sum(-1),
            input_properties=["a", "b"],
            output_properties={"q": {"type": "double"}},
        )
        use = model.predict_properties(table).compute
        message = message.replace("Partition 1", "A partition")
    else:
        use = partial(xee_tf.export_table, table, tmp_path / "t")
    with pytest.raises(xee_tf.ChunkError, match=message):
        use()
    assert not list(tmp_path.iterdir())
