"""Tests of the text and HTML of plans and results."""

from __future__ import annotations

import math
import os
import re
from contextlib import ExitStack
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.rasters import random_band, raster
from tests.strategies import sizes
from xee_tf.display import Summary
from xee_tf.display.svg import DROPPED, MARGIN, PATCH, grid_svg, patches_per_cell
from xee_tf.display.text import truncate
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef.summary import grid_picture
from xee_tf.sidecars import TableColumn, TableManifest, read_manifest

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def scene():
    bands = {"B3": random_band((443, 489)), "B4": random_band((443, 489), "uint8", seed=1)}
    return raster(bands).chunk(y=200, x=200)


def rects(svg: str, colour: str) -> list[tuple[float, ...]]:
    return [
        tuple(float(rect.get(name)) for name in ("x", "y", "width", "height"))
        for rect in ElementTree.fromstring(svg).iter(f"{SVG}rect")
        if f"fill:{colour}" in rect.get("style")
    ]


# -- Text --------------------------------------------------------------------------------------------


def test_plan_text(scene):
    text = repr(scene.tfexport.plan("out/scene", patch_dimensions=(128, 64), kernel_size=(32, 8)))
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines()[1:]}
    assert text.splitlines()[0] == f"<xee_tf.ExportPlan {os.path.abspath('out/scene')}>"
    assert lines["patches"] == "18 = 6 rows × 3 columns of 128 × 64 px, stored with margins as 160 × 72"
    assert lines["raster"] == "489 × 443 px; EPSG:32633"
    # 1 - 384 * 384 / (489 * 443)
    assert lines["dropped"] == "105 columns at the right, 59 rows at the bottom: 31.9 % of the pixels"
    assert lines["bands"] == "2 as float: B3, B4"
    assert lines["records"].startswith("18 of 90.0")  # kiB: 2 bands x 160 x 72 x 4 bytes
    assert lines["shards"].startswith("1; ")
    assert lines["files"] == "scene-00000.tfrecord.gz, scene-mixer.json, scene-image.tfexport"
    assert lines["bytes"].startswith("1.58 MiB before compression")
    assert "for 8 source chunks" in lines["tasks"]  # 2 bands x 2 x 2
    assert set(lines) >= {"tasks", "memory"}


def test_plan_text_with_other_options(scene):
    pytest.importorskip("geopandas")
    plan = scene.tfexport.plan(
        "out/scene",
        patch_dimensions=100,
        compressed=False,
        max_file_size=300_000,
        masked_threshold=0.5,
        index=True,
        edge="pad",
        feature_types="band",
    )
    text = repr(plan)
    assert "padded   11 columns at the right, 57 rows at the bottom" in text
    assert "records  at most 25 of 48" in text
    assert "bands    2 as float, bytes: B3, B4" in text
    assert "shards   at most 5; 5 records each" in text
    files = (
        "scene-00000.tfrecord to scene-00004.tfrecord, scene-image.tfexport, scene-index.parquet; no mixer"
    )
    assert files in " ".join(text.split())
    assert "compression" not in text


def test_plan_text_without_dropped_pixels_and_path(scene):
    plan = scene.tfexport.plan(patch_dimensions=(163, 443))
    text = repr(plan)
    assert text.splitlines()[0] == "<xee_tf.ExportPlan>"
    assert "patches  3 = 1 row × 3 columns of 163 × 443 px\n" in text
    assert "dropped  nothing: the patches fit exactly" in text


def test_plan_text_of_a_region_contains_its_origin(scene):
    plan = scene.tfexport.plan("out/scene", patch_dimensions=50, region=(slice(20, 120), slice(30, 180)))
    assert "raster   150 × 100 px from pixel x 30, y 20; EPSG:32633" in repr(plan)


def test_result_text_lists_files_and_checksums(scene, tmp_path):
    result = scene.tfexport(tmp_path / "scene", patch_dimensions=128, max_file_size=140_000)
    text = repr(result)
    assert "records   9\n" in text
    assert "in 9 shards" in text
    assert f"{tmp_path}/scene-mixer.json" in text
    assert "... and 4 more" in text
    for shard in result.files[:5]:
        assert f"crc32c {shard.crc32c:08x}" in text
    assert "scene-00007.tfrecord.gz" not in text


def test_result_text_counts_omitted_patches(tmp_path):
    band = random_band((40, 40))
    band[:20] = math.nan
    result = raster({"B3": band}).tfexport(tmp_path / "scene", patch_dimensions=20, masked_threshold=0.5)
    assert "records   2, 2 masked patches omitted" in repr(result)
    assert "mixer" not in repr(result)


def test_result_text_of_array_bands_and_pixels(tmp_path):
    ds = raster({"B3": random_band((40, 40))})
    ds["ndvi"] = (("time", "y", "x"), random_band((3, 40, 40)))
    result = ds.tfexport(tmp_path / "scene", patch_dimensions=20, sequence_data=True)
    text = repr(result)
    assert "records   1,600, one per pixel, 400 per patch\n" in text
    assert f"manifest  {tmp_path}/scene-image.tfexport" in text


@pytest.fixture
def table(tmp_path):
    pytest.importorskip("pyarrow")
    columns = {f"B{number}": [0.5, 0.25] for number in range(1, 13)}
    frame = pd.DataFrame({"name": ["<b>oak", "fir"], "id": [2**24 + 1, 1], **columns})
    frame["profile"] = [np.ones((2, 3)), np.zeros((2, 3))]
    with pytest.warns(UserWarning, match="rounded"):
        return xee_tf.export_table(frame, tmp_path / "sites")


def test_table_text(table, tmp_path):
    pytest.importorskip("pyarrow")
    text = repr(table)
    lines = text.splitlines()
    assert lines[0] == f"<xee_tf.TableResult {tmp_path}/sites.tfrecord.gz>"
    assert lines[1] == "  rows     2 × 15 columns"
    assert lines[2] == f"  bytes    {table.bytes} B, crc32c {table.file.crc32c:08x}"
    assert lines[3] == "  rounded  id: integers that float32 cannot represent exactly"
    assert [line.split()[-2:] for line in lines[4:7]] == [["name", "bytes"], ["id", "float"], ["B1", "float"]]
    assert lines[-1].split(maxsplit=1) == ["...", "and 3 more"]
    assert "profile" not in text
    few = replace(table, columns=table.columns[-2:], rounded=())
    assert [line.split(maxsplit=1)[-1] for line in repr(few).splitlines()[3:]] == [
        "B12      float",
        "float, 6 values as 2 × 3",
    ]


def test_table_html_is_well_formed_and_bounded(table):
    pytest.importorskip("pyarrow")
    root = ElementTree.fromstring(table._repr_html_())
    cells = ["".join(cell.itertext()) for cell in root.iter("td")]
    assert "<b>oak" not in cells
    assert cells[cells.index("name") + 1] == "bytes"
    assert cells[-1] == "... and 7 more"
    assert "15 columns" in "".join(root.itertext())


def test_long_lists_are_truncated_unless_one_line_remains():
    assert truncate("abcdef", 5) == ("abcdef", 0)
    assert truncate("abcdefg", 5) == ("abcde", 2)


def test_verification_text_names_files_and_problems(scene, tmp_path):
    result = scene.tfexport(tmp_path / "scene", patch_dimensions=128)
    text = repr(xee_tf.verify(result)).splitlines()
    assert text[0] == "<xee_tf.Verification: ok>"
    assert text[1] == f"  checked  {tmp_path}/scene-mixer.json"
    assert text[2].startswith("  read     9 records in 1 file, ")
    assert text[3:] == ["  against  the manifest"]


# -- HTML --------------------------------------------------------------------------------------------


def test_html_is_well_formed_and_escapes(scene):
    plan = scene.rename(B3="<b>&3").tfexport.plan("out/<script>", patch_dimensions=128)
    html = plan._repr_html_()
    root = ElementTree.fromstring(html)
    assert root.find(".//script") is None
    cells = ["".join(cell.itertext()) for cell in root.iter("td")]
    assert "2 as float: <b>&3, B4" in cells
    assert "scene" not in html
    assert "dropped" in "".join(root.itertext())


def test_result_html_is_well_formed_and_bounded(scene, tmp_path):
    result = scene.tfexport(tmp_path / "scene", patch_dimensions=32, max_file_size=10_000)
    assert len(result.files) == 195
    root = ElementTree.fromstring(result._repr_html_())
    assert len(list(root.iter("tr"))) < 20
    assert "... and 187 more" in "".join(root.itertext())
    assert [found.text for found in root.iter("summary")] == ["2 bands", "195 files"]
    result = scene.tfexport(tmp_path / "one", patch_dimensions=32)
    root = ElementTree.fromstring(result._repr_html_())
    assert [found.text for found in root.iter("summary")] == ["2 bands", "1 file"]


def test_result_html_has_all_bands(scene, tmp_path):
    names = [f"b{number}" for number in range(12)]
    many = raster({name: np.full((64, 64), number, "f4") for number, name in enumerate(names)})
    result = many.tfexport(tmp_path / "many", patch_dimensions=32)
    found = [result, xee_tf.inspect(result), read_manifest(result.manifest)]
    for each in found:
        values, _ = ElementTree.fromstring(each._repr_html_()).iter("details")
        assert (values.find("summary").text, values.get("open")) == ("12 bands", None)  # folded
        assert [row[0].text for row in values.iter("tr")] == names
        assert "11 to 11, mean 11, std 0" in "".join(values.itertext())
    for each in (result, read_manifest(result.manifest)):
        lines = repr(each).splitlines()
        [first] = [number for number, line in enumerate(lines) if line.startswith("  values ")]
        assert lines[first + 5].strip() == "... and 7 more"
        assert "b5" not in "".join(lines[first:])
    result = scene.tfexport(tmp_path / "few", patch_dimensions=128)
    values, _ = ElementTree.fromstring(result._repr_html_()).iter("details")
    assert (values.find("summary").text, values.get("open")) == ("2 bands", "")


def test_warnings_and_an_object_without_facts():
    summary = Summary("ExportPlan", "a&b", [("records", "1")], ["<b>large"])
    assert summary.text() == "<xee_tf.ExportPlan a&b>\n  records  1\n  warning  <b>large"
    assert (
        "".join(ElementTree.fromstring(summary.html()).itertext()) == "xee_tf.ExportPlan a&brecords1<b>large"
    )
    assert Summary("Model", "f", []).text() == "<xee_tf.Model f>"


HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(
    params=[
        "mixer",
        "manifest",
        "table manifest",
        "prepared",
        "server",
        "stats",
        "checked",
        "patches",
        "split",
        "model",
        "found",
    ]
)
def hostile(request, scene, tmp_path):
    """An object whose text is under the control of a user or of a file, and a part of its HTML."""
    scene = scene.rename(B3=HOSTILE)
    grid = PatchGrid(Size(x=489, y=443), Size(x=128, y=128), crs="EPSG:32633")
    if request.param == "mixer":
        mixer = xee_tf.Mixer.from_grid(grid)
        return replace(mixer, crs=HOSTILE, extra={HOSTILE: 1}), "9 = 3 rows × 3 columns"
    if request.param == "manifest":
        result = scene.tfexport(tmp_path / "scene", patch_dimensions=128)
        return read_manifest(result.manifest), "9 = 3 rows × 3 columns"
    if request.param == "table manifest":
        return TableManifest((TableColumn(HOSTILE), TableColumn("patch", shape=(4, 4)))), "2 columns"
    if request.param == "prepared":
        return xee_tf.PreparedModel(f"models/{HOSTILE}", (HOSTILE,), ("ndvi",)), "models/"
    if request.param == "server":
        return xee_tf.Server(
            "http://127.0.0.1:1", "127.0.0.1:2", (HOSTILE,), ExitStack()
        ), "http://127.0.0.1:1"
    if request.param == "stats":
        return xee_tf.PredictionStats(
            answered=2, instances=1_000, bytes_sent=5
        ), "1,000 instances in 2 requests"
    if request.param == "checked":
        return xee_tf.Verification((HOSTILE,), 1, 2, 3, True, (HOSTILE,)), "1 problem"
    if request.param == "patches":
        return xee_tf.open_patches(scene, patch_dimensions=128), "9 = 3 rows × 3 columns"
    if request.param == "split":
        some, others = xee_tf.PatchSelection(grid, [0, 1]), xee_tf.PatchSelection(grid, [2])
        return xee_tf.PatchSplit(grid, {HOSTILE: some}, others), "left out"
    if request.param == "model":
        return xee_tf.Model.from_function(len, bands=[HOSTILE], output_bands=["a"]), "outputs"
    result = scene.tfexport(tmp_path / "scene", patch_dimensions=128)
    return xee_tf.inspect(result), "9 = 3 rows × 3 columns"


def test_html_of_every_object_is_well_formed_escaped_and_self_contained(hostile):
    found, part = hostile
    html = found._repr_html_()
    root = ElementTree.fromstring(html)
    assert not [each for each in root.iter() if each.tag.rpartition("}")[2] in ("script", "link", "img")]
    assert part in "".join(root.itertext())
    assert "<script" not in html
    assert HOSTILE in "".join(root.itertext()) or isinstance(found, xee_tf.PredictionStats)
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1:1", "")
    # Text has the color of the page, so that it can be read on light and dark ones.
    assert not [
        each.get("style")
        for each in root.iter()
        if re.search(r"(^|;)color:(?!inherit)", each.get("style", ""))
    ]


# -- Picture -----------------------------------------------------------------------------------------


def test_picture_shows_margin_and_dropped_edges_in_proportion():
    grid = PatchGrid(Size(x=489, y=443), Size(x=128, y=128), Size(x=16, y=8))
    svg = grid_svg(grid_picture(grid), size=489)  # one CSS pixel per pixel of the raster
    assert set(rects(svg, DROPPED)) == {(384.0, 0.0, 105.0, 443.0), (0.0, 384.0, 384.0, 59.0)}
    in_place, enlarged = rects(svg, MARGIN)
    assert in_place == (112.0, 120.0, 160.0, 144.0)  # the halo of patch 4
    assert enlarged[2] / enlarged[3] == pytest.approx(160 / 144, abs=0.01)
    covered, core, _ = rects(svg, PATCH)
    assert covered == (0.0, 0.0, 384.0, 384.0)
    assert core == (128.0, 128.0, 128.0, 128.0)


def test_picture_shows_padding_beyond_the_raster():
    grid = PatchGrid(Size(x=100, y=60), Size(x=40, y=40), edge="pad")
    svg = grid_svg(grid_picture(grid), size=120)
    assert rects(svg, PATCH)[0] == (0.0, 0.0, 120.0, 80.0)
    assert rects(svg, "none") == [(0.0, 0.0, 100.0, 60.0)]
    assert not rects(svg, DROPPED)
    assert not rects(svg, MARGIN)


def test_picture_draws_blocks_where_they_are():
    grid = PatchGrid(Size(x=200, y=100), Size(x=50, y=50), origin=Size(x=30, y=40))
    svg = grid_svg(grid_picture(grid, [0, 60, 130, 300], [0, 90, 200]), size=200)
    paths = [path for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if "dash" in path.get("style")]
    assert [path.get("d") for path in paths] == ["M30 0V100M100 0V100M0 50H200"]


@given(sizes(1, 2_000_000), sizes(1, 400), sizes(0, 300), st.sampled_from(["drop", "pad"]))
def test_picture_is_bounded_and_well_formed(shape, patch, margin, edge):
    patch = Size(x=min(patch.x, shape.x), y=min(patch.y, shape.y))
    grid = PatchGrid(shape, patch, margin, edge=edge)
    edges = range(0, max(shape.xy) + 1, 512)
    picture = grid_picture(grid, edges, edges)
    svg = grid_svg(picture)
    elements = list(ElementTree.fromstring(svg).iter())
    assert len(elements) < 240
    assert len(svg) < 24_000
    assert "id=" not in svg
    numbers = [
        float(element.get(name))
        for element in elements
        for name in ("x", "y", "width", "height")
        if element.get(name)
    ]
    assert all(map(math.isfinite, numbers))
    assert min(patches_per_cell(picture)) >= 1
    assert picture.stored == grid.stored.xy
    assert picture.covered == grid.covered.xy
    assert picture.dropped == grid.dropped.xy
