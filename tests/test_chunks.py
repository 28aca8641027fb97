"""Tests of chunks that are not what Dask declares."""

import dask.array as da
import numpy as np
import pytest

import xee_tf
from tests.rasters import raster

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
