"""Tests of blocks: for any chunks, the patches are equal to those of the whole array."""

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle import cut_patches
from tests.strategies import chunkings, sizes
from xee_tf.blocks.assembling import BandRule, PlaneRule, assemble, cut_row
from xee_tf.blocks.layout import BlockAxis, BlockLayout, ChunkGrid, chunk_edges
from xee_tf.blocks.sizing import lay_out_blocks, merge_edges
from xee_tf.blocks.tiling import tiles
from xee_tf.geometry import PatchGrid, Size
from xee_tf.graph import BlockJob, add_task, chunk_grids, order_blocks, work_on_blocks


def cut_block(layout, block, pieces):
    """Return the patches of a block by (band, number of the patch); work for `block_tasks`."""
    window = layout.window(*block)
    bands, _ = assemble(
        window,
        pieces,
        [BandRule("<f4", 1, (PlaneRule(0, -1),))] * len(layout.planes),
    )
    columns = layout.x.owned(block[1])
    return {
        (band, row * layout.x.patches.count + column): patch[0].copy()
        for band, values in enumerate(bands)
        for row in layout.y.owned(block[0])
        for column, patch in zip(
            columns,
            cut_row(values, window, layout.y.patches, layout.x.patches, row, columns),
            strict=True,
        )
    }


def join(blocks):
    joined = {}
    for block in blocks:
        assert not joined.keys() & block.keys(), "duplicate patch"
        joined.update(block)
    return joined


@st.composite
def cases(draw):
    shape = draw(sizes(1, 40))
    left, top = draw(st.integers(0, shape.x - 1)), draw(st.integers(0, shape.y - 1))
    region = Size(x=draw(st.integers(1, shape.x - left)), y=draw(st.integers(1, shape.y - top)))
    edge = draw(st.sampled_from(["drop", "pad"]))
    most = (12, 12) if edge == "pad" else (min(12, region.x), min(12, region.y))
    patch = Size(x=draw(st.integers(1, most[0])), y=draw(st.integers(1, most[1])))
    kernel = draw(sizes(1, 15))
    grid = PatchGrid(region, patch, PatchGrid.margin_of(kernel), edge=edge, origin=Size(x=left, y=top))
    chunks = draw(st.lists(st.tuples(chunkings(shape.y), chunkings(shape.x)), min_size=1, max_size=3))
    least = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    group = draw(st.integers(1, grid.patches_per_row))
    return shape, grid, kernel, chunks, least, group, draw(st.tuples(st.booleans(), st.booleans()))


@given(cases())
def test_patches_of_blocks_and_chunks_loaded_once(case):
    shape, grid, kernel, chunks, least, group, centered = case
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 1000, shape.shape).astype("f4") for _ in chunks]
    loads = []

    def load(block, block_info=None, number=0):
        loads.append((number, block_info[0]["chunk-location"]))
        return block

    arrays = [
        da.from_array(value, chunks=chunking, name=f"source-{number}").map_blocks(
            load, dtype="f4", number=number, meta=np.empty((0, 0), "f4")
        )
        for number, (value, chunking) in enumerate(zip(values, chunks, strict=True))
    ]
    y, x = grid.axis_y, grid.axis_x
    grids = chunk_grids(arrays)
    span_y, span_x = y.halo(0, y.count - 1), x.halo(0, x.count - 1)
    layout = BlockLayout(
        BlockAxis(
            merge_edges(grids[0].y, max(0, span_y[0]), min(shape.y, span_y[1]), pixels=least[0]),
            shape.y,
            y,
            centered=centered[0],
        ),
        BlockAxis(
            merge_edges(grids[0].x, max(0, span_x[0]), min(shape.x, span_x[1]), pixels=least[1]),
            shape.x,
            x,
            group,
            centered[1],
        ),
        grids,
    )
    graph, [blocks] = work_on_blocks(
        [BlockJob("cut-test", arrays, list("abc")[: len(arrays)], layout, cut_block)]
    )
    [blocks] = order_blocks(graph, [blocks], "order-cut-test")
    joined = add_task(graph.tasks, "joined", join, list(blocks.values()))
    found = graph.delayed("test", joined).compute(scheduler="sync")

    assert sorted(found) == [(band, number) for band in range(len(chunks)) for number in range(len(grid))]
    region = (grid.origin.y, grid.origin.y + grid.shape.y, grid.origin.x, grid.origin.x + grid.shape.x)
    for band, value in enumerate(values):
        expected, _ = cut_patches(
            value, patch=grid.patch.xy, kernel=kernel.xy, default=-1, region=region, edge=grid.edge
        )
        for number, patch in enumerate(expected):
            np.testing.assert_array_equal(found[band, number], patch)
    assert len(loads) == len(set(loads)) == layout.chunk_count()
    # The patches of a gzip member belong to one block.
    for block in range(len(layout.x)):
        owned = layout.x.owned(block)
        assert owned.start % group == 0 or not owned
    kept = {
        (piece.home, piece.part if centered[1] else None)
        for block in layout.blocks()
        for piece in layout.pieces(*block)
        if piece.home != block
    }
    names = [key[0] if isinstance(key, tuple) else key for key in graph.tasks]
    work = [name for name in names if name.startswith(("work", "strips", "cut-test", "order", "joined"))]
    assert len(work) == len(kept) + 2 * len(blocks) + 2


def test_aligned_chunks_without_margin_have_no_strips():
    array = da.zeros((512, 512), chunks=(128, 128), dtype="f4")
    grid = PatchGrid(Size(x=512, y=512), Size(x=64, y=32))
    edges = (0, 128, 256, 384, 512)
    layout = BlockLayout(
        BlockAxis(edges, 512, grid.axis_y), BlockAxis(edges, 512, grid.axis_x), chunk_grids([array])
    )
    assert not any(layout.strips(0, *chunk) for chunk in layout.chunks(0))
    assert all(len(layout.pieces(*block)) == 1 for block in layout.blocks())


def test_strips_are_small():
    """With 1024-pixel chunks, patches of 256 and a kernel of 32, strips are below a third of a chunk."""
    array = da.zeros((8192, 8192), chunks=(1024, 1024), dtype="f4")
    grid = PatchGrid(Size(x=8192, y=8192), Size(x=256, y=256), Size(x=16, y=16))
    edges = tuple(range(0, 8193, 1024))
    layout = BlockLayout(
        BlockAxis(edges, 8192, grid.axis_y), BlockAxis(edges, 8192, grid.axis_x), chunk_grids([array])
    )
    bottoms = [layout.strips(0, *chunk)["bottom"].size.pixels for chunk in layout.chunks(0) if chunk[0] < 7]
    assert max(bottoms) < 0.3 * 1024 * 1024


def test_kernel_larger_than_chunks():
    array = da.from_array(np.arange(900.0, dtype="f4").reshape(30, 30), chunks=(3, 4))
    grid = PatchGrid(Size(x=30, y=30), Size(x=5, y=5), Size(x=10, y=10))
    grids = chunk_grids([array])
    layout = BlockLayout(
        BlockAxis(merge_edges(grids[0].y, 0, 30, pixels=5), 30, grid.axis_y),
        BlockAxis(merge_edges(grids[0].x, 0, 30, pixels=5), 30, grid.axis_x),
        grids,
    )
    graph, [blocks] = work_on_blocks([BlockJob("cut-wide", [array], ["a"], layout, cut_block)])
    [blocks] = order_blocks(graph, [blocks], "order-cut-wide")
    joined = add_task(graph.tasks, "joined", join, list(blocks.values()))
    found = graph.delayed("wide", joined).compute(scheduler="sync")
    expected, _ = cut_patches(array.compute(), patch=(5, 5), kernel=(20, 20), default=-1)
    for number, patch in enumerate(expected):
        np.testing.assert_array_equal(found[0, number], patch)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_nodata_and_nan_are_masked(dtype):
    values = np.array([[1, 2], [3, 4]], dtype)
    rule = PlaneRule(0, -5, nodata=(3,))
    masked = rule.masked(values)
    np.testing.assert_array_equal(masked, values == 3)
    np.testing.assert_array_equal(
        PlaneRule(0, 0, nodata=(4, 1)).masked(values), (values == 1) | (values == 4)
    )
    assert PlaneRule(0, 0).masked(values.astype("u1")) is None
    if dtype.startswith("f"):
        values[0, 0] = np.nan
        np.testing.assert_array_equal(rule.masked(values), [[True, False], [True, False]])


def test_delayed_is_dask_collection():
    array = da.zeros((4, 4), chunks=2)
    grid = PatchGrid(Size(x=4, y=4), Size(x=2, y=2))
    layout = BlockLayout(
        BlockAxis((0, 2, 4), 4, grid.axis_y), BlockAxis((0, 2, 4), 4, grid.axis_x), chunk_grids([array])
    )
    graph, [blocks] = work_on_blocks([BlockJob("cut-collection", [array], ["a"], layout, cut_block)])
    [blocks] = order_blocks(graph, [blocks], "order-cut-collection")
    joined = add_task(graph.tasks, "all", join, list(blocks.values()))
    delayed = graph.delayed("collection", joined)
    assert dask.is_dask_collection(delayed)


@given(cases(), st.integers(1, 24).map(lambda bits: 1 << bits))
def test_tiles_divide_blocks(case, patch_bytes):
    shape, grid, _, chunks, _, group, centered = case
    planes = [ChunkGrid(chunk_edges(y), chunk_edges(x), 4) for y, x in chunks]
    layout = lay_out_blocks(grid, shape, planes, 4 * len(planes), group, centered=centered)
    for block in layout.blocks():
        rows, columns = layout.y.owned(block[0]), layout.x.owned(block[1])
        found = list(tiles(layout, block, patch_bytes))
        patches = [(row, column) for down, across in found for row in down for column in across]
        assert patches == sorted(patches) if len(found[0][0]) == 1 else all(a == columns for _, a in found)
        assert sorted(patches) == [(row, column) for row in rows for column in columns]
        assert all(across.start % group == 0 or across.start == columns.start for _, across in found)
