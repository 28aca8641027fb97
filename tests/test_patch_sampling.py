"""Tests of selections, samples and splits of patches."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st

import xee_tf
from tests.optional import optional
from tests.rasters import raster
from tests.strategies import chunkings, examples
from xee_tf.errors import GeoreferenceError, GridMismatchError, OptionError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.sampling import PatchSelection, sample_patches, split_patches

gpd = optional("geopandas")

CRS = "EPSG:32633"
GRID = PatchGrid(Size(x=400, y=300), Size(x=10, y=10), Size(x=4, y=4), Affine(30, 0, 7e5, 0, -30, 5e6), CRS)
SIDES = {"train": 0.6, "val": 0.2, "test": 0.2}


@st.composite
def grids(draw):
    """Draw grids with patches that may have larger margins than sides."""
    patch = Size(x=draw(st.integers(1, 7)), y=draw(st.integers(1, 7)))
    margin = Size(x=draw(st.integers(0, 9)), y=draw(st.integers(0, 9)))
    shape = Size(x=draw(st.integers(patch.x, 70)), y=draw(st.integers(patch.y, 70)))
    return PatchGrid(shape, patch, margin, GRID.affine, CRS, draw(st.sampled_from(["drop", "pad"])))


def used_pixels(selection):
    """Mark the pixels that the patches of a selection store, one by one."""
    grid = selection.grid
    height, width = grid.rows * grid.patch.y, grid.patches_per_row * grid.patch.x
    marked = np.zeros((height + 2 * grid.margin.y, width + 2 * grid.margin.x), bool)
    for patch in selection.patches.tolist():
        window = grid.halo(patch)
        marked[
            window.top + grid.margin.y : window.bottom + grid.margin.y,
            window.left + grid.margin.x : window.right + grid.margin.x,
        ] = True
    return marked


def assert_no_leaks(split):
    marked = [used_pixels(selection) for selection in split.values()]
    assert np.sum(marked, axis=0).max() <= 1
    numbers = np.concatenate([*(selection.patches for selection in split.values()), split.lost.patches])
    assert len(np.unique(numbers)) == len(numbers)


@given(grids(), st.data())
def test_sides_have_no_common_pixel(grid, data):
    block = data.draw(
        st.one_of(
            st.integers(1, 6),
            st.tuples(st.integers(1, 6), st.none()),
            st.tuples(st.none(), st.integers(1, 6)),
            st.none(),
        )
    )
    numbers = data.draw(st.lists(st.integers(0, len(grid) - 1), min_size=3)) or range(len(grid))
    patches = data.draw(st.sampled_from([grid, PatchSelection(grid, np.array(numbers))]))
    try:
        split = split_patches(patches, SIDES, block=block, seed=data.draw(st.integers(-5, 5)))
    except OptionError:  # a side has no patch
        assume(False)
    assert_no_leaks(split)
    allowed = set(patches.patches.tolist()) if isinstance(patches, PatchSelection) else set(range(len(grid)))
    kept = sum(map(len, split.values())) + len(split.lost)
    assert kept == len(allowed)
    assert set(split.lost.patches.tolist()) <= allowed
    assert split.lost_share == len(split.lost) / kept
    if grid.margin == Size(x=0, y=0):
        assert not len(split.lost)


@given(grids(), st.data())
def test_patches_are_left_out_only_where_they_would_leak(grid, data):
    blocks = data.draw(st.integers(1, 5))
    try:
        split = split_patches(grid, {"train": 0.5, "test": 0.5}, block=blocks)
    except OptionError:
        assume(False)
    kept = {name: used_pixels(selection) for name, selection in split.items()}
    sizes = {name: int((kept[name]).sum()) for name in kept}
    assert all(sizes.values())
    for patch in split.lost.patches.tolist():
        alone = used_pixels(PatchSelection(grid, np.array([patch])))
        assert any((alone & pixels).any() for pixels in kept.values())


def test_proportions_and_whole_blocks():
    without = PatchGrid(GRID.shape, GRID.patch)
    for seed in range(5):
        split = split_patches(without, SIDES, block=3, seed=seed)
        shares = [selection.share for selection in split.values()]
        np.testing.assert_allclose(shares, list(SIDES.values()), atol=0.01)
        owner = np.zeros((30, 40), int)
        for number, selection in enumerate(split.values()):
            owner[selection.mask] = number
        for row in range(0, 30, 3):
            for column in range(0, 40, 3):
                assert len(np.unique(owner[row : row + 3, column : column + 3])) == 1
    first = split_patches(without, SIDES, seed=1)
    assert dict(first) == dict(split_patches(without, SIDES, seed=1))
    assert dict(first) != dict(split_patches(without, SIDES, seed=2))
    part = split_patches(without, {"train": 0.5, "test": 0.25}, block=1)
    assert [len(selection) for selection in part.values()] == [600, 300]


def test_stripes_are_whole_columns_or_rows():
    columns = split_patches(GRID, {"train": 0.7, "test": 0.3}, block=(5, None))
    for selection in columns.values():
        assert (selection.mask == selection.mask[0]).all()
    rows = split_patches(GRID, {"train": 0.7, "test": 0.3}, block=(None, 5))
    for selection in rows.values():
        assert (selection.mask.T[0] == selection.mask.T).all()


def test_split_accepts_whatever_has_patches():
    ds = raster({"B4": np.zeros((300, 400), "float32")})
    plan = ds.tfexport.plan(patch_dimensions=10, kernel_size=8)
    found = split_patches(plan, SIDES, seed=3)
    assert dict(found) == dict(split_patches(plan.grid, SIDES, seed=3))
    mixer = xee_tf.Mixer.from_grid(plan.grid)
    again = split_patches(mixer, SIDES, seed=3, kernel_size=8)
    assert [each.patches.tolist() for each in again.values()] == [
        each.patches.tolist() for each in found.values()
    ]
    with pytest.raises(OptionError, match=r"A mixer does not contain the kernel: pass the kernel_size"):
        split_patches(mixer, SIDES)
    with pytest.raises(OptionError, match="kernel_size=8 is only for mixers"):
        split_patches(plan, SIDES, kernel_size=8)
    with pytest.raises(OptionError, match="patches must be a PatchGrid, a PatchSelection"):
        split_patches("scene", SIDES)


def boxes(*corners):
    """Return boxes, given in patches of GRID as (left, top, right, bottom), in its CRS."""
    return [
        shapely.box(7e5 + 300 * left, 5e6 - 300 * bottom, 7e5 + 300 * right, 5e6 - 300 * top)
        for left, top, right, bottom in corners
    ]


def test_split_by_polygons():
    frame = gpd.GeoDataFrame(
        {"side": ["train", "test", "train"]},
        geometry=boxes((0, 0, 10, 30), (10, 0, 20, 30), (25, 5.4, 40, 20)),
        crs=CRS,
    )
    split = split_patches(GRID, frame, column="side")
    assert_no_leaks(split)
    train, test = split["train"].mask, split["test"].mask
    assert train[:, :9].all()
    assert not train[:, 9:25].any()
    assert test[:, 11:20].all()
    assert not test[:, 10].any()
    assert train[5:20, 25:].all()
    assert not train[:5, 25:].any()
    lost = split.lost.mask
    assert lost[:, 9].all()
    assert lost[:, 10].all()
    assert lost.sum() == 60
    named = {"train": frame.geometry[frame.side == "train"], "test": frame[frame.side == "test"]}
    assert dict(split_patches(GRID, named)) == dict(split)
    moved = frame.to_crs("EPSG:4326")
    assert dict(split_patches(GRID, moved, column="side")) == dict(split)
    assert dict(split_patches(GRID, moved.__geo_interface__, column="side")) == dict(split)


@given(grids(), st.lists(st.tuples(*[st.floats(0, 1)] * 4, st.sampled_from("ab")), min_size=2, max_size=5))
def test_no_patch_has_pixels_of_polygons_of_other_sides(grid, drawn):
    shapes, sides = [], []
    for *corners, side in drawn:
        left, right = (at * grid.shape.x for at in sorted(corners[::2]))
        top, bottom = (at * grid.shape.y for at in sorted(corners[1::2]))
        shapes.append(shapely.box(left, top, right + 1, bottom + 1))
        sides.append(side)
    world = [
        shapely.transform(shape, lambda at: np.column_stack([7e5 + 30 * at[:, 0], 5e6 - 30 * at[:, 1]]))
        for shape in shapes
    ]
    crs = {"type": "name", "properties": {"name": CRS}}
    layers = {
        side: {
            "type": "GeometryCollection",
            "geometries": [g.__geo_interface__ for g, s in zip(world, sides, strict=True) if s == side],
            "crs": crs,
        }
        for side in dict.fromkeys(sides)
    }
    try:
        split = split_patches(grid, layers)
    except OptionError:
        assume(False)
    assert_no_leaks(split)
    for name, selection in split.items():
        for patch in selection.patches.tolist():
            halo, core = grid.halo(patch), grid.core(patch)
            box = shapely.box(halo.left, halo.top, halo.right, halo.bottom).buffer(-1e-4)
            center = shapely.Point((core.left + core.right) / 2, (core.top + core.bottom) / 2).buffer(1e-4)
            for shape, side in zip(shapes, sides, strict=True):
                assert side == name or not shape.intersects(box)
            assert any(s == name and g.intersects(center) for g, s in zip(shapes, sides, strict=True))


def labelled(shape, chunks, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.choice([1, 2, 7, 9], size=shape, p=[0.9, 0.09, 0.005, 0.005]).astype("uint8")
    ds = raster({"cover": values})
    ds["cover"].attrs["nodata"] = 9
    return ds.rio.write_crs(CRS)["cover"].chunk(y=chunks[0], x=chunks[1])


def holders(labels, grid, value):
    """Return the patches with a pixel of a class."""
    values = labels.values
    return {patch for patch in range(len(grid)) if (values[grid.core(patch).slices] == value).any()}


@pytest.mark.filterwarnings("ignore:.*than n asks for")
@given(st.data())
@examples(25)
def test_balanced_samples_do_not_depend_on_chunks(data):
    shape = data.draw(st.tuples(st.integers(8, 60), st.integers(8, 60)))
    labels = labelled(shape, shape, seed=data.draw(st.integers(0, 99)))
    patch = Size(x=data.draw(st.integers(1, 8)), y=data.draw(st.integers(1, 8)))
    grid = xee_tf.plan_export(labels, patch_dimensions=patch.xy).grid
    n = data.draw(st.integers(1, 20))
    found = sample_patches(grid, n, class_band=labels, seed=4)
    for value in (1, 2, 7):
        every = holders(labels, grid, value)
        assert len(every & set(found.patches.tolist())) >= min(n, len(every))
    assert not (
        set(found.patches.tolist())
        - (holders(labels, grid, 1) | holders(labels, grid, 2))
        - holders(labels, grid, 7)
    )
    chunks = tuple(data.draw(chunkings(length)) for length in shape)
    again = sample_patches(grid, n, class_band=labels.chunk(y=chunks[0], x=chunks[1]), seed=4)
    assert again == found


def test_balanced_sample_of_some_classes():
    labels = labelled((300, 400), (128, 77))
    grid = xee_tf.plan_export(labels, patch_dimensions=10).grid
    found = sample_patches(grid, {7: 12, 2: 3}, class_band=labels)
    chosen = set(found.patches.tolist())
    assert len(chosen & holders(labels, grid, 7)) == 12 == len(chosen)  # those hold class 2, too
    with pytest.raises(
        OptionError, match=r"n has the class 9, which no patch holds; the classes are 1, 2, 7"
    ):
        sample_patches(grid, {9: 1}, class_band=labels)
    with pytest.raises(GridMismatchError, match="class_band='cover' is not on the grid of the patches"):
        sample_patches(grid, 3, class_band=labels[1:])
    noise = (labels + np.random.default_rng(0).random(labels.shape)).rename("noise").rio.write_crs(CRS)
    with pytest.raises(OptionError, match=r"class_band='noise' has .* different values: .* at most 1,000"):
        sample_patches(grid, 3, class_band=noise)


def test_labels_of_a_region():
    labels = labelled((90, 120), (50, 50))
    grid = xee_tf.plan_export(labels, patch_dimensions=7, region=(slice(11, 80), slice(23, 117))).grid
    inner = labels[11:80, 23:117]
    with pytest.warns(UserWarning, match=rf"7 \({len(holders(inner, grid, 7))} of 1,000\)"):
        found = sample_patches(grid, {7: 1000}, class_band=labels)
    assert set(found.patches.tolist()) == holders(inner, grid, 7)


def test_a_coordinate_is_no_band_of_classes():
    ds = raster({"cover": np.zeros((300, 400), "uint8")})
    with pytest.raises(GeoreferenceError, match=r"this one has the dimensions \('y',\)"):
        split_patches(GRID, SIDES, class_band=ds["y"])


def test_stratified_splits_divide_rare_classes():
    values = np.ones((300, 400), "uint8")
    values[:60, :60] = 2  # a rare class in a corner
    values[140:170, 200:230] = 3
    labels = raster({"cover": values}).rio.write_crs(CRS)["cover"].chunk(y=100, x=100)
    grid = xee_tf.plan_export(labels, patch_dimensions=10).grid
    split = split_patches(grid, {"train": 0.5, "test": 0.5}, block=2, class_band=labels)
    assert_no_leaks(split)
    for value in (1, 2, 3):
        total = (values == value).sum()
        for selection in split.values():
            pixels = np.kron(selection.mask, np.ones((10, 10), bool))
            assert 0.4 < (values[pixels] == value).sum() / total < 0.6
    uneven = split_patches(grid, {"train": 0.8, "test": 0.1}, block=2, class_band=labels)
    np.testing.assert_allclose([each.share for each in uneven.values()], [0.8, 0.1], atol=0.02)


def test_random_samples():
    assert len(sample_patches(GRID, 100)) == 100
    with pytest.warns(UserWarning, match=r"n=5,000 patches were asked for, but there are only 1,200"):
        assert len(sample_patches(GRID, 5000)) == len(GRID)
    assert len(sample_patches(GRID, 0.1)) == 120
    assert sample_patches(GRID, 1e2, seed=7) == sample_patches(GRID, 100, seed=7)
    assert sample_patches(GRID, 100, seed=7) != sample_patches(GRID, 100, seed=8)
    # A smaller sample is part of a larger one with the same seed.
    small, large = sample_patches(GRID, 50), sample_patches(GRID, 80)
    assert set(small.patches.tolist()) < set(large.patches.tolist())
    # Each patch has about the same chance.
    times = sum(sample_patches(GRID, 0.5, seed=seed).mask.astype(int) for seed in range(200))
    assert times.min() > 60
    assert times.max() < 140


def test_samples_of_blocks_and_polygons():
    found = sample_patches(GRID, per_block=2, block=(5, 6)).mask
    assert (found.reshape(5, 6, 8, 5).sum(axis=(1, 3)) == 2).all()
    inside = sample_patches(GRID, polygons=gpd.GeoSeries(boxes((3, 4, 8.4, 9.6)), crs=CRS))
    assert inside.mask[4:10, 3:8].all()
    assert len(inside) == 30
    touched = sample_patches(GRID, polygons=gpd.GeoSeries(boxes((3, 4, 8.4, 9.6)), crs=CRS), all_touched=True)
    assert touched.mask[4:10, 3:9].all()
    assert len(touched) == 36
    both = sample_patches(touched, 3, per_block=1, block=2)
    assert len(both) == 3
    assert set(both.patches.tolist()) < set(touched.patches.tolist())
    with pytest.raises(
        OptionError, match=r"No patch is selected in the polygons, of 1,200 in all. Use all_to"
    ):
        sample_patches(GRID, polygons=gpd.GeoSeries(boxes((3.1, 4.1, 3.2, 4.2)), crs=CRS))
    with pytest.raises(GeoreferenceError, match="polygons has no CRS"):
        sample_patches(GRID, polygons=gpd.GeoSeries(boxes((3, 4, 8, 9))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_patches(GRID, {"a": 0.7, "b": 0.7}), "proportions above 0 with a sum of at most 1"),
        (lambda: split_patches(GRID, {"a/b": 0.7}), "can be part of a file name, such as 'train'; got 'a/b'"),
        (lambda: split_patches(GRID, {}), "sides must be a mapping of names to proportions or to polygons"),
        (lambda: split_patches(GRID, SIDES, block=0), "block must be a whole number of at least 1; got 0"),
        (lambda: split_patches(GRID, SIDES, block=(None, None)), r"or \(width, height\), in which None"),
        (lambda: split_patches(GRID, SIDES, block=50), "No patch is left for .*, of 1,200 patches in all"),
        (lambda: split_patches(GRID, SIDES, column="side"), "column='side' is only for polygons"),
        (
            lambda: split_patches(GRID, {"type": "FeatureCollection", "features": []}),
            "Pass column=, the column that names the side of each polygon",
        ),
        (lambda: split_patches(GRID, {"a": "train.geojson"}), r"sides\['a'\] must be a GeoDataFrame"),
        (lambda: sample_patches(GRID, "many"), "n must be a number of patches, such as 1000, or a propor"),
        (lambda: sample_patches(GRID, 0), "n must be a whole number of at least 1; got 0"),
        (lambda: sample_patches(GRID, True), "n must be a number of patches"),
        (lambda: sample_patches(GRID, 2.5), "n must be a whole number of at least 1; got 2.5"),
        (lambda: sample_patches(GRID, {3: 5}), "pass the band that holds the classes as class_band="),
        (lambda: sample_patches(GRID, 3, block=4), "block=4 is only for per_block"),
        (lambda: sample_patches(GRID, 3, all_touched=True), "all_touched=True is only for polygons"),
        (
            lambda: sample_patches(GRID, polygons={"type": "Point", "coordinates": [15, 45]}),
            "polygons must contain polygons only; got in row 0 <POINT",
        ),
        (lambda: PatchSelection(GRID, np.array([5, 1200])), "There is no patch 1200: the grid has 1,200"),
        (lambda: PatchSelection(GRID, np.array([-1])), "There is no patch -1"),
        (lambda: PatchSelection(GRID, np.ones((30, 40), bool)), r"Convert a mask with PatchSelection.from_m"),
        (lambda: PatchSelection.from_mask(GRID, np.ones(1200, bool)), r"of shape \(30, 40\); got bool of s"),
    ],
)
def test_errors_name_the_value_and_the_remedy(call, message):
    with pytest.raises(OptionError, match=message):
        call()


def test_selections_are_sorted_and_compared_by_value():
    one, other = PatchSelection(GRID, np.array([7, 3, 3])), PatchSelection(GRID, [3, 7])
    assert one == other
    assert hash(one) == hash(other)
    assert len(one) == 2
    assert one != PatchSelection(GRID, [3])
    assert one != "text"
    assert PatchSelection.from_mask(GRID, one.mask) == one
    with pytest.raises(ValueError, match="read-only"):
        one.patches[0] = 1
    assert len(PatchSelection(GRID, [])) == 0
