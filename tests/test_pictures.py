"""Tests of pictures: plans, selections, splits, and sheets of patches."""

from __future__ import annotations

import time
from collections import Counter
from xml.etree import ElementTree

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xee_tf
from tests.rasters import random_band, raster
from xee_tf.display.plot import mixed_colors
from xee_tf.display.sides import SidesPicture, sides_svg
from xee_tf.geometry import PatchGrid, Size

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def scene():
    bands = {name: random_band((44, 60), seed=at) for at, name in enumerate(["red", "green", "blue"])}
    bands["nir"] = random_band((44, 60), seed=9)
    bands["landcover"] = random_band((44, 60), "uint8", seed=5) % 3 + 1
    return raster(bands).chunk(y=20, x=32)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def rectangles(ax):
    """Return (left, top, width, height) of all rectangles."""
    return {
        (*patch.get_xy(), patch.get_width(), patch.get_height())
        for patch in ax.patches
        if isinstance(patch, mpl.patches.Rectangle)
    }


def line_places(ax, axis, style=None):
    """Return the places of vertical (0) or horizontal (1) lines."""
    found = set()
    for each in ax.collections:
        dashed = each.get_linestyles()[0][1] is not None
        for (x0, y0), (x1, y1) in each.get_segments():
            if dashed == (style == "dashed") and (x0 == x1 if axis == 0 else y0 == y1):
                found.add(x0 if axis == 0 else y0)
    return found


# -- Plans -------------------------------------------------------------------------------------------


def test_plan_draws_patches_chunks_margin_and_dropped_pixels_where_they_are(scene):
    ax = scene.tfexport.plan(patch_dimensions=16, kernel_size=(4, 8)).plot()
    assert line_places(ax, 0) == {0, 16, 32, 48}
    assert line_places(ax, 1) == {0, 16, 32}
    assert line_places(ax, 0, "dashed") == {32}
    assert line_places(ax, 1, "dashed") == {20, 40}
    drawn = rectangles(ax)
    assert {(0, 0, 60, 44), (48, 0, 12, 44), (0, 32, 48, 12), (16, 16, 16, 16), (14, 12, 20, 24)} <= drawn
    assert labels(ax) == ["raster, 60 × 44 px", "patch", "dropped", "3 × 2 chunks", "margin of a patch"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is at the top
    ax.figure.canvas.draw()


def test_plan_of_a_region_draws_it_inside_the_raster(scene):
    ax = scene.tfexport.plan(patch_dimensions=10, region=(slice(4, 34), slice(30, 57))).plot()
    assert {(0, 0, 60, 44), (30, 4, 27, 30), (50, 4, 7, 30)} <= rectangles(ax)
    assert line_places(ax, 0) == {30, 40, 50}


def test_plan_draws_to_given_axes_and_padding(scene):
    figure, own = plt.subplots()
    ax = scene.tfexport.plan(patch_dimensions=16, edge="pad").plot(ax=own)
    assert ax is own
    assert plt.get_fignums() == [figure.number]
    assert (0, 0, 64, 48) in rectangles(ax)
    assert "dropped" not in labels(ax)


def test_plan_shows_selected_patches(scene):
    plan = scene.tfexport.plan(patch_dimensions=16, sample=2)
    ax = plan.plot()
    assert "selected: 33.3 %" in labels(ax)
    [image] = ax.images
    np.testing.assert_array_equal(image.get_array()[..., 3] > 0, plan.selection.mask)


@pytest.mark.parametrize("patch", [32, 20_000])
def test_plan_of_any_number_of_patches_draws_few_lines_and_reads_nothing(patch):
    def fail(*_):
        raise AssertionError

    band = da.zeros((100_000, 103_000), chunks=4096, dtype="uint8").map_blocks(fail, dtype="uint8")
    coords = {"y": 5e6 - 30 * np.arange(100_000.0), "x": 7e5 + 30 * np.arange(103_000.0)}
    ds = xr.Dataset({"B4": (("y", "x"), band)}, coords, {"crs": "EPSG:32633"})
    plan = ds.tfexport.plan(patch_dimensions=patch, kernel_size=8)
    assert plan.records == (3_125 * 3_218 if patch == 32 else 5 * 5)
    begin = time.perf_counter()
    ax = plan.plot()
    assert time.perf_counter() - begin < 10
    lines = sum(len(each.get_segments()) for each in ax.collections)
    assert lines < 300
    assert len(ax.patches) < 30


def test_plan_of_a_prediction_draws_tiles_with_their_overlap(scene):
    model = xee_tf.Model.from_function(
        len, input_tile_size=16, input_overlap_size=4, bands=["nir"], output_bands=["forest"]
    )
    plan = model.plan(scene)
    ax = plan.plot()
    assert (0, 0, 64, 48) in rectangles(ax)
    tile, sent = plan.grid.patch.x, plan.grid.stored.x
    assert (tile, tile, tile, tile) in rectangles(ax)
    margin = plan.grid.margin.x
    assert (tile - margin, tile - margin, sent, sent) in rectangles(ax)
    assert "margin of a tile" in labels(ax)
    pixels = xee_tf.Model.from_function(len, unit="pixel", bands=["nir"], output_bands=["forest"])
    assert pixels.plan(scene).plot().get_title() == "2,640 pixels"


# -- Selections and splits ---------------------------------------------------------------------------


def test_split_is_drawn_where_its_patches_are():
    grid = PatchGrid(Size(x=323, y=320), Size(x=16, y=16), Size(x=4, y=4), origin=Size(x=7, y=5))
    split = xee_tf.split_patches(grid, {"train": 0.7, "test": 0.2}, block=4, seed=2)
    ax = split.plot()
    [image] = ax.images
    found = image.get_array()
    assert image.get_extent() == [7, 327, 325, 5]
    drawn = {tuple(color) for side in split.values() for color in found[side.mask].tolist()}
    assert len(drawn) == 2
    for side in split.values():
        assert len({tuple(color) for color in found[side.mask].tolist()}) == 1
    gray = found[split.lost.mask]
    assert np.ptp(gray[:, :3], axis=1).max() == 0
    nothing = ~(split["train"].mask | split["test"].mask | split.lost.mask)
    assert nothing.any()
    assert not found[nothing].any()
    rows = {line.split()[0]: line for line in repr(split).splitlines()[1:]}
    for text in labels(ax):
        name, numbers = text.split(": ")
        assert numbers.split(" ", 1)[1].strip("()") in rows[name.split()[0]]


def test_many_patches_are_merged_and_their_colors_mixed():
    mask = np.zeros((3000, 2500), bool)
    mask[:, :1250] = True
    image = mixed_colors([("a", "#ff0000", mask), ("b", "#0000ff", ~mask)])
    assert max(image.shape) <= 1024
    assert image[:, :416, 0].min() == 1
    assert image[:, 417:, 2].min() == 1
    one = np.zeros((3000, 2500), bool)
    one[1234, 567] = True
    assert (mixed_colors([("a", "#ff0000", one)])[..., 3] >= 0.4).sum() == 1


def test_split_exports_are_drawn_from_their_manifests(scene, tmp_path):
    results = scene.tfexport(
        tmp_path / "scene", patch_dimensions=4, split={"train": 0.6, "test": 0.3}, seed=1
    )
    by_path = xee_tf.show_split({name: each.manifest for name, each in results.items()})
    ax = xee_tf.show_split(results)
    assert labels(ax) == labels(by_path)
    counts = {text.split(": ")[0]: int(text.split(": ")[1].split()[0]) for text in labels(ax)}
    assert counts["train"] == results["train"].records
    assert counts["test"] == results["test"].records
    assert sum(counts.values()) == 11 * 15
    with pytest.raises(xee_tf.OptionError, match=r"sides must be the result of xee_tf\.split_patches"):
        xee_tf.show_split([])
    with pytest.raises(xee_tf.MissingShardError):
        xee_tf.show_split({"train": tmp_path / "none"})


def test_selection_html_has_a_bounded_map():
    grid = PatchGrid(Size(x=16_000, y=8_000), Size(x=16, y=16))
    chosen = xee_tf.PatchSelection(grid, np.arange(0, len(grid), 3))
    html = chosen._repr_html_()
    root = ElementTree.fromstring(html)
    assert len(html) < 40_000
    assert "selected" in "".join(root.itertext())


def test_small_map_draws_runs_and_escapes_names():
    masks = {"<script>": np.array([[True, True, False]]), "b": np.array([[False, False, True]])}
    svg, colors = sides_svg(SidesPicture(masks, (2, 2)))
    root = ElementTree.fromstring(svg)
    paths = [each.get("d") for each in root.iter() if each.tag.endswith("path")]
    assert paths == ["M0 0h2v1h-2z", "M2 0h1v1h-1z"]
    assert "<script>" not in svg
    assert [name for _, name in colors] == ["<script>", "b"]


# -- Sheets ------------------------------------------------------------------------------------------


def image_of(ax):
    return np.asarray(ax.images[0].get_array())


def stretched(values, masks):
    low, high = np.percentile(values[~masks], [2, 98])
    return ((values - low) / (high - low)).clip(0, 1)


@pytest.mark.parametrize("opened", ["result", "path", "dataset", "patches", "sequence"])
def test_sheet_has_the_pixels_of_the_patches_in_its_titles(scene, tmp_path, opened):
    options = {"patch_dimensions": 10, "kernel_size": 4, "feature_types": "band"}
    if opened == "patches":
        source = xee_tf.open_patches(scene, **options)
    elif opened == "sequence":
        pytest.importorskip("keras")
        source = xee_tf.PatchSequence(
            scene, inputs=["red", "green", "blue"], targets=["landcover"], **options
        )
    else:
        result = scene.tfexport(tmp_path / "scene", **options)
        source = {"result": result, "path": str(tmp_path / "scene-mixer.json")}.get(opened)
        if source is None:
            source = xee_tf.open_image(result, margins="keep")
    axes = xee_tf.show_patches(source, n=5, labels="landcover", seed=3)
    assert axes.shape == (5, 2)
    numbers = [int(ax.get_title(loc="left")) for ax in axes[:, 0]]
    assert numbers == sorted(set(numbers))
    grid = xee_tf.plan_export(scene, **options).grid
    padded = scene.compute().pad(y=2, x=2, constant_values=0)
    windows = [
        (slice(t, t + 14), slice(left, left + 14))
        for t, left in ((10 * row, 10 * column) for row, column in map(grid.locate, numbers))
    ]
    stored = {
        name: np.stack([padded[name].to_numpy()[window] for window in windows])
        for name in ("red", "green", "blue", "landcover")
    }
    bands = np.stack([stored[name] for name in ("red", "green", "blue")], -1)
    masks = bands == 0 if opened != "dataset" else np.zeros(bands.shape, bool)
    shown = np.stack([image_of(ax) for ax in axes[:, 0]])
    inside = ~masks.any(-1)
    for at in range(3):
        expected = stretched(bands[..., at], masks[..., at])
        np.testing.assert_allclose(shown[..., at][inside], expected[inside], atol=1e-5)
    np.testing.assert_array_equal(shown[..., 3] == 1, inside)
    drawn = np.stack([image_of(ax) for ax in axes[:, 1]])
    for value in (1, 2, 3):
        assert len(np.unique(drawn[stored["landcover"] == value], axis=0)) == 1
    dashed = [patch for patch in axes[0, 0].patches if patch.get_linestyle() == "--"]
    assert len(dashed) == (0 if opened == "dataset" else 1)
    if dashed:
        assert dashed[0].get_bbox().bounds == (1.5, 1.5, 10, 10)


def test_sheet_reads_only_the_patches_that_it_shows(scene, tmp_path):
    loaded = Counter()

    def load(block, block_info=None):
        loaded[tuple(block_info[0]["chunk-location"])] += 1
        return block

    band = da.zeros((2048, 2048), chunks=512, dtype="float32").map_blocks(load, meta=np.empty((0, 0)))
    coords = {"y": 5e6 - 30 * np.arange(2048.0), "x": 7e5 + 30 * np.arange(2048.0)}
    large = xr.Dataset({"nir": (("y", "x"), band)}, coords, {"crs": "EPSG:32633"})
    patches = xee_tf.open_patches(large, patch_dimensions=64)
    loaded.clear()
    xee_tf.show_patches(patches, n=2, seed=None)
    assert 1 <= len(loaded) <= 2  # of 16: the block with both patches
    # The second half of the records is damaged, which a reader of them would notice.
    result = scene.tfexport(tmp_path / "scene", patch_dimensions=4, compressed=False)
    path = tmp_path / "scene-00000.tfrecord"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    path.write_bytes(damaged)
    axes = xee_tf.show_patches(result, n=1, seed=None, rgb="nir")
    assert image_of(axes[0, 0]).shape == (4, 4, 4)
    with pytest.raises(xee_tf.RecordError):
        xee_tf.show_patches(result, n=9, seed=0, rgb="nir")


def test_sheet_of_a_sampled_export_has_the_numbers_of_its_patches(scene, tmp_path):
    result = scene.tfexport(tmp_path / "scene", patch_dimensions=10, sample=4)
    axes = xee_tf.show_patches(result)
    manifest = xee_tf.open_image(result)  # dropped patches are NaN
    for ax in axes[:, 0]:
        row, column = result.grid.locate(int(ax.get_title(loc="left")))
        kept = manifest.red[row * 10 : row * 10 + 10, column * 10 : column * 10 + 10]
        assert kept.notnull().all()
    assert len(axes) == 4


@pytest.mark.parametrize("form", ["tuple", "dict", "one_hot", "gray"])
def test_sheet_of_arrays(form):
    rng = np.random.default_rng(0)
    pixels, classes = rng.random((4, 6, 8, 3)).astype("float32"), rng.integers(0, 3, (4, 6, 8))
    pixels[0, 0, 0, 1] = np.nan
    source = {
        "tuple": (pixels, classes[..., None]),
        "dict": ({"red": pixels[..., 0], "green": pixels[..., 1], "blue": pixels[..., 2]}, classes),
        "one_hot": (pixels, np.eye(3, dtype="float32")[classes]),
        "gray": (pixels[..., 0], classes),
    }[form]
    axes = xee_tf.show_patches(
        source, classes=["soil", "wood & <b>", "water"], colors=["#f00", "#0f0", "blue"]
    )
    assert axes.shape == (4, 2)
    for number in range(4):
        drawn = image_of(axes[number, 1])
        np.testing.assert_array_equal(drawn[..., :3].argmax(-1), classes[number])
    [legend] = axes[0, 0].figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["soil", "wood & <b>", "water", *(["masked"] if form != "gray" else [])]
    assert (image_of(axes[0, 0])[0, 0, 3] == 0) == (form != "gray")


def test_sheet_takes_names_and_colors_from_a_class_map(scene):
    probabilities = np.zeros((2, 4, 4))
    coords = {"y": 5e6 - 30 * np.arange(4.0), "x": 7e5 + 30 * np.arange(4.0)}
    ds = xr.Dataset(
        {name: (("y", "x"), each) for name, each in zip("ab", probabilities, strict=True)}, coords
    )
    named = xee_tf.class_map(
        ds, class_names=["forest", "water"], values=[1, 2], colors=["#008000", "#0000ff"]
    )
    patches = xee_tf.open_patches(scene, patch_dimensions=20, feature_types="band")
    axes = xee_tf.show_patches(patches, labels="landcover", classes=named)
    texts = [text.get_text() for text in axes[0, 0].figure.legends[0].get_texts()]
    assert texts[:3] == ["forest", "water", "3"]
    values = patches[0]["landcover"]
    assert {tuple(color) for color in image_of(axes[0, 1])[values == 2].tolist()} == {(0, 0, 1, 1)}
    with pytest.raises(xee_tf.OptionError, match="flag_values"):
        xee_tf.show_patches(patches, labels="landcover", classes=scene.nir)


def test_sheet_of_steps():
    pixels = np.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4, 1)
    assert len(xee_tf.show_patches(pixels, step=2)) == 2
    with pytest.raises(xee_tf.OptionError, match="step must be from 0 to 2"):
        xee_tf.show_patches(pixels, step=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rgb": ["red", "green"]}, "one band or three"),
        ({"rgb": ["red", "gren", "blue"]}, "gren.*Did you mean 'green'"),
        ({"labels": "class"}, "labels has 'class'"),
        ({"labels": 5}, "labels must be"),
        ({"n": 0}, "n must be"),
        ({"classes": 5, "labels": "landcover"}, "classes must be"),
        ({"colors": {1: "no color"}, "labels": "landcover"}, "colors\\[1\\]"),
    ],
)
def test_wrong_options_are_refused(scene, options, message):
    patches = xee_tf.open_patches(scene, patch_dimensions=20)
    with pytest.raises(xee_tf.OptionError, match=message):
        xee_tf.show_patches(patches, **options)


@pytest.mark.parametrize("source", [None, 5, "", np.zeros((3, 4)), xr.Dataset()])
def test_wrong_sources_are_refused(source):
    with pytest.raises((xee_tf.OptionError, xee_tf.MissingShardError)):
        xee_tf.show_patches(source)
