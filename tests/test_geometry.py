import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import affines, sizes
from xee_tf import OptionError, PatchGrid, Size

edges = st.sampled_from(["drop", "pad"])


@given(sizes(8, 60), sizes(1, 8), sizes(1, 9), edges)
def test_cores_tile_the_raster_in_row_major_order(shape, patch, kernel, edge):
    grid = PatchGrid(shape, patch, PatchGrid.margin_of(kernel), edge=edge)
    times = np.zeros(grid.covered.shape, int)
    corners = []
    for number in range(len(grid)):
        core = grid.core(number)
        times[core.slices] += 1
        corners.append((core.top, core.left))
        assert core.size == patch
        assert grid.halo(number).size == grid.stored
    assert (times == 1).all()
    assert corners == sorted(corners)
    if edge == "drop":
        assert (grid.shape.x - grid.covered.x, grid.shape.y - grid.covered.y) == grid.dropped.xy
        assert grid.dropped.x < patch.x
        assert grid.dropped.y < patch.y
    else:
        assert grid.dropped.xy == (0, 0)
        assert grid.covered.x >= shape.x
        assert grid.covered.y >= shape.y


@given(sizes(8, 40), sizes(1, 8), sizes(1, 9), affines())
def test_the_transform_of_a_patch_matches_its_pixels(shape, patch, kernel, affine):
    margin = PatchGrid.margin_of(kernel)
    grid = PatchGrid(shape, patch, margin, affine)
    for number in {0, len(grid) - 1, len(grid) // 2}:
        row, column = number // grid.patches_per_row, number % grid.patches_per_row
        x, y = column * patch.x, row * patch.y
        assert grid.transform(number) @ (0, 0) == pytest.approx(affine @ (x, y))
        padded = grid.transform(number, halo=True)
        assert padded @ margin.xy == pytest.approx(affine @ (x, y), rel=1e-9, abs=1e-6)
        assert grid.corners(number)[2] == pytest.approx(
            affine @ (x + patch.x, y + patch.y), rel=1e-9, abs=1e-6
        )


@pytest.mark.parametrize(
    ("kernel", "stored"),
    [((1, 1), (10, 20)), ((2, 3), (12, 22)), ((32, 5), (42, 24)), ((60, 60), (70, 80))],
)
def test_stored_size(kernel, stored):
    margin = PatchGrid.margin_of(Size.from_xy(kernel, "kernel_size"))
    assert PatchGrid(Size(x=100, y=100), Size(x=10, y=20), margin).stored.xy == stored


def test_the_affine_keeps_its_orientation():
    south_up = Affine(30, 0, 0, 0, 30, 1000)
    grid = PatchGrid(Size(x=4, y=4), Size(x=2, y=2), affine=south_up)
    assert grid.transform(2) @ (0, 0) == (0, 1060)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": Size(x=10, y=10), "patch": Size(x=0, y=2)}, "at least 1 pixel wide; got 0"),
        ({"shape": Size(x=10, y=10), "patch": Size(x=2, y=11)}, "patch of 11 pixels does not fit"),
        ({"shape": Size(x=0, y=10), "patch": Size(x=2, y=2)}, "no pixels"),
        ({"shape": Size(x=9, y=9), "patch": Size(x=2, y=2), "margin": Size(x=-1, y=0)}, "cannot be negative"),
        ({"shape": Size(x=9, y=9), "patch": Size(x=2, y=2), "edge": "shift"}, "edge must be 'drop' or 'pad'"),
    ],
)
def test_invalid_grids(arguments, message):
    with pytest.raises(OptionError, match=message):
        PatchGrid(**arguments)


@pytest.mark.parametrize("value", ["256", (1, 2, 3), [], 2.5, (2.5, 3), None])
def test_invalid_sizes(value):
    with pytest.raises(OptionError, match="patch_dimensions must be an integer or a pair"):
        Size.from_xy(value, "patch_dimensions")


@pytest.mark.parametrize("value", [0, (5, 0), (-2, 7), Size(x=3, y=0), [np.int8(-1)]])
def test_empty_sizes_raise(value):
    with pytest.raises(OptionError, match=r"kernel_size must be at least 1 pixel on each side; got \("):
        Size.from_xy(value, "kernel_size")


def test_margins_may_be_zero():
    assert Size.from_xy((0, 3), "input_overlap_size", least=0) == Size(x=0, y=3)
    for value in (-1, (4, -3), Size(x=-2, y=0)):
        with pytest.raises(OptionError, match=r"input_overlap_size cannot be negative; got \("):
            Size.from_xy(value, "input_overlap_size", least=0)


def test_an_index_out_of_range_raises():
    with pytest.raises(IndexError, match="Patch index 4 is out of range for a grid of 4 patches"):
        PatchGrid(Size(x=4, y=4), Size(x=2, y=2)).core(4)
