"""The tiles and overviews of GeoTIFFs: equal to an oracle, and the same bytes whatever computes them."""

import struct
from collections import Counter
from fractions import Fraction

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
from dask.callbacks import Callback
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.rasters import raster
from tests.strategies import examples
from xee_tf import DestinationError, OptionError
from xee_tf.upload.cog.header import layout, levels_of, read_tags
from xee_tf.upload.cog.overviews import halve
from xee_tf.upload.cog.writer import _depth

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]


def expected(pixels, method, nodata):
    """Halve a plane, pixel by pixel."""
    rows, columns = pixels.shape
    out = np.empty((-(-rows // 2), -(-columns // 2)), pixels.dtype)
    for y, x in np.ndindex(*out.shape):
        cell = list(pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel())
        valid = [value for value in cell if value == value and (nodata is None or value != nodata)]
        if method == "nearest" or not valid:
            out[y, x] = cell[0]
        elif method == "mode":
            counts = Counter(value.item() for value in valid)
            out[y, x] = max(valid, key=lambda value: counts[value.item()])
        else:
            mean = sum(value.item() for value in valid) / len(valid)
            whole = mean if pixels.dtype.kind == "f" else round(mean)
            out[y, x] = valid[0] if pixels.dtype.type(whole) == nodata else whole
    return out


@given(st.data())
@examples(150)
def test_halving_is_that_of_an_oracle(data):
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    low = -3 if dtype.kind != "u" else 0
    values = st.lists(st.integers(low, 4), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    pixels = np.array(data.draw(values), dtype).reshape(shape)
    nodata = data.draw(st.sampled_from([None, 0, 2]))
    if dtype.kind == "f":
        pixels[pixels == 1] = np.nan
    for method in ("nearest", "mean", "mode"):
        found = halve(pixels[None], method, nodata)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found[0], expected(pixels, method, nodata), err_msg=method)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint64", "float32", "float64"])
def test_means_of_the_largest_values(dtype):
    largest = np.finfo(dtype).max if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    assert halve(np.full((1, 2, 2), largest, dtype), "mean", None).item() == largest


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_means_of_large_integers_are_exact(dtype):
    """Compared with Python's integers, whose division by powers of two rounds halves to even."""
    rng = np.random.default_rng(8)
    info = np.iinfo(dtype)
    pixels = rng.integers(info.min, info.max, (1, 12, 12), dtype, endpoint=True)
    found = halve(pixels, "mean", None)[0]
    for (y, x), value in np.ndenumerate(found):
        cell = [int(each) for each in pixels[0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel()]
        assert int(value) == round(Fraction(sum(cell), 4))


SMALLEST = 5e-324


@pytest.mark.parametrize("exponent", [-1074, -1060, -30, 971])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_means_are_in_the_range_of_their_cells(exponent, missing):
    """Also of subnormal numbers, of three equal ones such as 0.1, and of those with an infinite sum."""
    rng = np.random.default_rng(exponent + 2000)
    pixels = np.ldexp(rng.integers(1, 9 if exponent == -1074 else 2**53, (1, 200, 200)) * 1.0, exponent)
    pixels[:, ::2] = np.repeat(pixels[:, ::2, ::2], 2, axis=2)
    pixels[:, 1::2, ::2] = pixels[:, ::2, ::2]
    cells = np.stack([pixels[0, y::2, x::2] for y in (0, 1) for x in (0, 1)])
    cells[4 - missing :] = np.nan
    for number, cell in enumerate(cells):
        pixels[0, number // 2 :: 2, number % 2 :: 2] = cell
    found = halve(pixels, "mean", None)[0]
    assert (found >= np.nanmin(cells, axis=0)).all()
    assert (found <= np.nanmax(cells, axis=0)).all()


def test_means_of_subnormal_pixels_are_exact():
    pixels = np.array([[[1, 2, 7, 5], [3, 2, np.nan, 6]]]) * SMALLEST
    assert (halve(pixels, "mean", None) / SMALLEST).tolist() == [[[2, 6]]]


def test_infinite_pixels_do_not_become_missing():
    pixels = np.array([[[np.inf, -np.inf, np.inf, 1], [1, 2, 3, np.nan]]], "float32")
    assert halve(pixels, "mean", None).tolist() == [[[np.inf, np.inf]]]


@pytest.mark.parametrize(
    ("chunks", "depth"),
    [((256, 32_768), 1), ((32_768, 256), 1), ((1024, 9000), 2), ((2048, 2048), 3), ((1, 1), 1)],
)
def test_blocks_are_as_high_as_strips(chunks, depth):
    array = da.zeros((32_768, 32_768), chunks=chunks if min(chunks) > 1 else 512, dtype="f4")
    assert _depth({"b": array}, 512, 1) == depth


def test_a_zarr_store_has_no_overviews(tmp_path):
    raster({"B4": np.ones((64, 64), "u1")}).tfexport(tmp_path / "s", patch_dimensions=32)
    with pytest.raises(
        xee_tf.OptionError, match=r"overview_resampling='mode' is for GeoTIFFs.*write a \.tif"
    ):
        xee_tf.upload_image(None, tmp_path / "s-mixer.json", tmp_path / "s.zarr", overview_resampling="mode")
    assert not (tmp_path / "s.zarr").exists()


def test_overviews_of_uploads_and_predictions(tmp_path):
    """They are those of `to_cog`."""
    band = np.random.default_rng(2).integers(0, 200, (1280, 1280)).astype("f4")
    image = raster({"B4": band}).chunk(x=640, y=640)
    image.tfexport(tmp_path / "s", patch_dimensions=64)
    model = xee_tf.Model.from_function(lambda tiles: tiles[..., 0], input_tile_size=64, output_bands=["B4"])
    expected_levels = levels(xee_tf.to_cog(image, tmp_path / "a.tif", overview_resampling="mean"))
    predicted = xee_tf.predict_to_cog(model, image, tmp_path / "p.tif", overview_resampling="mean")
    for one, other in zip(levels(predicted), expected_levels, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("option", "same"),
    [
        ({"overview_resampling": "mean"}, "mean"),
        ({"overview_resampling": {"kind": "mode"}}, {"kind": "mode"}),
        ({"pyramidingPolicy": {".default": "mean", "kind": "sample"}}, {"share": "mean"}),
    ],
)
def test_uploads_have_the_bytes_of_to_cog(tmp_path, option, same):
    rng = np.random.default_rng(5)
    bands = {"kind": rng.integers(0, 4, (1280, 640)).astype("f4"), "share": rng.random((1280, 640), "f4")}
    image = raster(bands).chunk(x=320, y=320)
    image.tfexport(tmp_path / "s", patch_dimensions=64)
    uploaded = xee_tf.upload_image(None, tmp_path / "s-mixer.json", tmp_path / "u.tif", **option)
    expected_file = xee_tf.to_cog(image, tmp_path / "a.tif", overview_resampling=same)
    assert uploaded.read_bytes() == expected_file.read_bytes()
    nearest = xee_tf.to_cog(image, tmp_path / "n.tif")
    assert uploaded.read_bytes() != nearest.read_bytes()


def scene(rows, columns):
    """Bands with missing pixels, of which one has several steps."""
    rng = np.random.default_rng(3)
    red = rng.normal(0, 1, (rows, columns)).astype("f4")
    red[rng.random(red.shape) < 0.4] = np.nan
    classes = rng.integers(0, 5, (2, rows, columns)).astype("f4")
    return raster({"red": red}).assign(classes=(("time", "y", "x"), classes))


def levels(path):
    """Read all levels of a file."""
    with rasterio.open(path) as file:
        found = [file.read()]
        count = len(file.overviews(1))
    for level in range(count):
        with rasterio.open(path, overview_level=level) as file:
            found.append(file.read())
    return found


RESAMPLING = {"red": "mean", "classes": "mode"}


@pytest.fixture(scope="module")
def scene_levels():
    """The planes of a scene, and of its two overviews."""
    image = scene(1100, 560)
    planes = [[image.red.values, *image.classes.values]]
    for _ in range(2):
        planes.append(
            [
                expected(plane, RESAMPLING["classes" if number else "red"], None)
                for number, plane in enumerate(planes[-1])
            ]
        )
    return planes


@pytest.mark.parametrize("chunks", [{"y": 400, "x": 500}, {"y": 3, "x": -1}, {"y": -1, "x": -1}])
def test_overviews_of_each_band(tmp_path, chunks, scene_levels):
    image = scene(1100, 560).chunk(chunks)
    found = levels(xee_tf.to_cog(image, tmp_path / "a.tif", overview_resampling=RESAMPLING))
    assert [level.shape[-2:] for level in found] == [(1100, 560), (550, 280), (275, 140)]
    for level, planes in zip(found, scene_levels, strict=True):
        np.testing.assert_array_equal(level, planes)


def test_bytes_do_not_depend_on_chunks_or_schedulers(tmp_path):
    image = scene(900, 2100)
    files = []
    for number, (scheduler, chunks) in enumerate(
        [
            ("sync", {"y": -1, "x": -1}),
            ("threads", {"y": 512, "x": 512}),
            ("threads", {"y": (1, 898, 1), "x": 77, "time": 1}),
            ("processes", {"y": 1024, "x": 2048}),
        ]
    ):
        with dask.config.set(scheduler=scheduler):
            xee_tf.to_cog(image.chunk(chunks), tmp_path / f"{number}.tif", overview_resampling="mean")
        files.append((tmp_path / f"{number}.tif").read_bytes())
    assert all(file == files[0] for file in files)
    assert len(list(tmp_path.iterdir())) == len(files)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_of_all_dtypes(tmp_path, dtype):
    """Random bits, except NaN and what marks missing pixels."""
    values = np.random.default_rng(1).bytes(3 * 700 * 530 * np.dtype(dtype).itemsize)
    planes = np.frombuffer(values, dtype).reshape(3, 700, 530)
    if planes.dtype.kind == "f":
        planes = np.nan_to_num(planes, nan=1.5)
    file = xee_tf.to_cog(
        raster(dict(zip("abc", planes, strict=True))).chunk(y=300, x=200), tmp_path / "a.tif"
    )
    np.testing.assert_array_equal(levels(file)[0], planes)
    np.testing.assert_array_equal(levels(file)[1], planes[:, ::2, ::2])


def test_file_is_what_its_first_bytes_promise(tmp_path):
    """All directories come first, overviews before the raster, tiles row by row in frames."""
    path = xee_tf.to_cog(scene(1500, 1100).chunk(y=512, x=512), tmp_path / "a.tif").path
    data = (tmp_path / "a.tif").read_bytes()
    assert data[8:].startswith(b"GDAL_STRUCTURAL_METADATA_SIZE=000140 bytes\nLAYOUT=IFDS_BEFORE_DATA\n")
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        count = len(file.overviews(1))
    position = None
    for level in (*reversed(range(count)), None):
        with rasterio.open(path, **({} if level is None else {"overview_level": level})) as file:
            for (row, column), _ in file.block_windows(1):
                offset, size = (
                    int(file.get_tag_item(f"BLOCK_{fact}_{column}_{row}", "TIFF", bidx=1))
                    for fact in ("OFFSET", "SIZE")
                )
                assert position in (None, offset - 4)
                assert struct.unpack_from("<I", data, offset - 4) == (size,)
                position = offset + size + 4
                assert data[position - 4 : position] == data[position - 8 : position - 4]
    assert position == len(data)


def test_large_files_have_long_offsets(tmp_path):
    """The header of 6 GB is read by GDAL; its tiles are a hole in the file."""
    small = xee_tf.to_cog(scene(8, 8)[["red"]], tmp_path / "small.tif")
    tags = read_tags(small.read_bytes())
    shape = levels_of((20_000, 10_000), 512)
    sizes = [np.full(level.tiles[0] * level.tiles[1], 6_000_000) for level in shape]
    header, offsets = layout(tags, shape, 512, sizes)
    assert header[:4] == b"II+\0"
    with open(tmp_path / "large.tif", "wb") as file:
        file.write(header)
        file.truncate(int(offsets[0][-1]) + 6_000_004)
    with rasterio.open(tmp_path / "large.tif") as file:
        assert (file.shape, file.overviews(1)) == ((20_000, 10_000), [2, 4, 8, 16, 32, 64])
        assert file.descriptions == ("red",)
        last = int(file.get_tag_item("BLOCK_OFFSET_19_39", "TIFF", bidx=1))
    assert last == offsets[0][-1] > 2**32


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cubic", "overview_resampling must be 'nearest', 'mean' or 'mode'; got 'cubic'"),
        ({"red": "median"}, "overview_resampling of band 'red' must be .*; got 'median'"),
        ({"nir": "mean"}, "names the band 'nir', which is not written. The bands are 'red', 'classes'\\."),
    ],
)
def test_unknown_resampling(tmp_path, how, message):
    with pytest.raises(OptionError, match=message):
        xee_tf.to_cog(scene(8, 8), tmp_path / "a.tif", overview_resampling=how)
    assert not list(tmp_path.iterdir())


def test_policies_of_earth_engine(tmp_path):
    ours = xee_tf.to_cog(scene(900, 700), tmp_path / "a.tif", overview_resampling={"red": "mean"})
    policy = {".default": "sample", "red": "mean"}
    theirs = xee_tf.to_cog(scene(900, 700), tmp_path / "b.tif", pyramidingPolicy=policy)
    assert ours.read_bytes() == theirs.read_bytes()
    modes = xee_tf.to_cog(scene(900, 700), tmp_path / "c.tif", pyramidingPolicy={".default": "mode"})
    assert (
        modes.read_bytes()
        == xee_tf.to_cog(scene(900, 700), tmp_path / "d.tif", overview_resampling="mode").read_bytes()
    )


def test_valid_pixels_do_not_become_missing_in_means(tmp_path):
    values = np.tile(np.array([[-2, 2, 0, 0, 0, 3], [0, 0, 0, 0, -3, 0]], "int16"), (300, 100))
    image = raster({"a": values})
    image.a.attrs["_FillValue"] = 0
    full, overview, *_ = levels(xee_tf.to_cog(image, tmp_path / "a.tif", overview_resampling="mean"))
    some = (full[0] != 0).reshape(300, 2, 300, 2).any((1, 3))
    np.testing.assert_array_equal(overview[0] != 0, some)


def test_chunks_are_loaded_once_with_few_tasks(tmp_path):
    loaded = []

    def load(block_info=None):
        found = block_info[None]
        loaded.append(found["chunk-location"])
        return np.zeros([stop - start for start, stop in found["array-location"]], "u1")

    sizes = ((400,) * 5, (300,) * 7)
    lazy = da.map_blocks(load, chunks=sizes, dtype="u1", meta=np.empty((0, 0), "u1"))
    image = raster({"a": np.zeros(lazy.shape, "u1")}).assign(a=(("y", "x"), lazy), b=(("y", "x"), lazy + 1))
    done = []
    with Callback(posttask=lambda key, *_: done.append(key)):
        xee_tf.to_cog(image, tmp_path / "a.tif")
    assert len(loaded) == len(set(loaded)) == 35
    assert len(done) < 35 * 4


@pytest.mark.parametrize("kept", [0, 1, 40])
@pytest.mark.parametrize("folder", ["", "memory://geotiffs/"])
def test_tiles_that_are_missing_or_incomplete(tmp_path, monkeypatch, kept, folder):
    from xee_tf.upload.cog import tiles, writer

    def copy(parts, shapes, staging, file):
        staged = staging.folder.child(parts[-1].name)
        data = staged.read_bytes()
        staged.remove()
        if kept:
            staged.write_bytes(data[:kept])
        copy_tiles(parts, shapes, staging, file)

    copy_tiles = tiles.copy_tiles
    monkeypatch.setattr(writer, "copy_tiles", copy)
    expected = (
        r"a\.tif: its temporary file .* is missing or incomplete\. On a cluster, workers must share the disk "
        r"of a local destination\. Nothing was changed\.$"
    )
    with pytest.raises(DestinationError, match=expected):
        xee_tf.to_cog(scene(8, 8), f"{folder or tmp_path}/a.tif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cubic", "overview_resampling must be 'nearest', 'mean' or 'mode'; got 'cubic'"),
        ({"share": "median"}, "overview_resampling of band 'share' must be .*; got 'median'"),
        ({"other": "mean"}, "names the band 'other', which is not written. The bands are 'share'"),
    ],
)
def test_resampling_is_checked_before_the_model_is_opened(tmp_path, how, message):
    """The model does not exist."""
    model = xee_tf.Model.from_saved_model(tmp_path / "model", input_tile_size=8, output_bands=["share"])
    with pytest.raises(OptionError, match=message):
        xee_tf.predict_to_cog(model, scene(8, 8), tmp_path / "a.tif", overview_resampling=how)
    assert not list(tmp_path.iterdir())
