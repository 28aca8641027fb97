"""Maps that are saved: the pixels of their pictures, what is computed for them, and errors."""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import from_bounds
from rasterio.warp import reproject, transform

import xee_tf
from tests.rasters import raster
from tests.test_explore import COLORS, classes, counted_classes, smooth


def saved(shown: xee_tf.Explorer, path: Path, **options: Any) -> list[dict[str, Any]]:
    """Save a map, and return its layers as the page gets them, with the pixels of the pictures."""
    file = shown.save(path, **options)
    text = Path(file.path).read_text("utf-8")
    layers = json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])["layers"]
    for layer in layers:
        data = base64.b64decode(layer.pop("image").removeprefix("data:image/png;base64,"))
        with MemoryFile(data) as opened, pytest.warns(rasterio.errors.NotGeoreferencedWarning):
            layer["pixels"] = opened.open().read().transpose(1, 2, 0)
    return layers


def place(layer: dict[str, Any]) -> Affine:
    """Return the affine of a picture in Web Mercator, from its bounds."""
    [[south, west], [north, east]] = layer["bounds"]
    (left, right), (bottom, top) = transform("EPSG:4326", "EPSG:3857", [west, east], [south, north])
    height, width, _ = layer["pixels"].shape
    return from_bounds(left, bottom, right, top, width, height)


def test_pictures_of_small_rasters_are_small(tmp_path: Path) -> None:
    with xee_tf.explore({"small": classes(200, 300), "tiny": classes(8, 9)}) as shown:
        small, tiny = (max(layer["pixels"].shape) for layer in saved(shown, tmp_path / "map.html"))
    assert 550 < small < 650  # about twice 300; the grids are turned and scaled
    assert tiny == 64


def test_the_picture_is_that_of_a_warp(tmp_path: Path) -> None:
    image = classes(200, 300)
    with xee_tf.explore({"cover": image}, opacity=0.4) as shown:
        [layer] = saved(shown, tmp_path / "map.html", size=1100)
    pixels = layer["pixels"]
    assert max(pixels.shape) == 1100
    numbers = np.full(pixels.shape[:2], 255, "u1")
    reproject(
        image.values,
        numbers,
        src_transform=image.rio.transform(),
        src_crs=image.rio.crs,
        src_nodata=255,
        dst_transform=place(layer),
        dst_crs="EPSG:3857",
        dst_nodata=255,
        resampling=Resampling.nearest,
    )
    expected = np.zeros_like(pixels)
    for color, number in zip(COLORS.values(), (1, 2, 5), strict=True):
        expected[numbers == number] = (*bytes.fromhex(color[1:]), 255)
    assert (pixels != expected).any(axis=-1).mean() < 0.004
    assert {1, 2, 5, 255} == set(np.unique(numbers))
    assert [each["name"] for each in layer["legend"]["classes"]] == list(COLORS)
    assert (layer["name"], layer["opacity"], layer["least_zoom"]) == ("cover", 0.4, 0)


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    with xee_tf.explore({name: classes(60, 60)}) as shown:
        shown.save(str(tmp_path / "map.html"))
    text = (tmp_path / "map.html").read_text("utf-8")
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', text.partition("/* @preserve")[0]) == []
    assert not re.search(r'<script src|<link rel="stylesheet"', text)
    assert text.count("</script>") == 3
    assert "Redistributions in binary form must reproduce" in text
    assert [path.name for path in tmp_path.iterdir()] == ["map.html"]


@pytest.mark.parametrize(("west", "step", "width"), [(179.2, 0.01, 160), (-180, 0.1, 3600), (244, 0.01, 160)])
def test_beyond_180_degrees(west: float, step: float, width: int, tmp_path: Path) -> None:
    """Every pixel is drawn, and the class of a few pixels at its longitude."""
    values = np.ones((120, width), "u1")
    values[50:70, 70:90] = 2
    attrs = {"flag_values": [1, 2], "flag_meanings": "a b", "flag_colors": "#ff0000 #0000ff"}
    image = xr.DataArray(values, dims=("y", "x"), attrs=attrs).chunk(1000)
    affine = Affine(step, 0, west, 0, -step, 10)
    with xee_tf.explore(image, crs="EPSG:4326", transform=affine, max_pixels=1 << 20) as shown:
        [layer] = saved(shown, tmp_path / "map.html", size=1400)
    pixels = layer["pixels"]
    [[_, left], [_, right]] = layer["bounds"]
    assert right - left == pytest.approx(width * step, abs=1e-6)
    assert pixels[1:-1, 1:-1, 3].all()
    at = (west + 80 * step - left) % 360 / (right - left) * pixels.shape[1]
    assert pixels[len(pixels) // 2, int(at), :3].tolist() == [0, 0, 255]
    assert (pixels[..., 2] > 0).mean() == pytest.approx(400 / values.size, rel=0.1)


def test_too_many_pixels(tmp_path: Path) -> None:
    """The error comes before anything is computed, and names an extent and a size that work."""
    loads, image = counted_classes(1000, 100)
    with xee_tf.explore(image, max_pixels=256 * 256) as shown:
        with pytest.raises(
            xee_tf.OptionError, match=r"picture of .* shows at most .* Choose a smaller"
        ) as error:
            shown.save(tmp_path / "map.html", size=400)
        assert loads == []
        assert not list(tmp_path.iterdir())
        [found] = re.findall(r"bounds=\(([^)]*)\), or pass size=(\d+)", str(error.value))
        bounds = [float(each) for each in found[0].split(", ")]
        [part] = saved(shown, tmp_path / "part.html", size=400, bounds=bounds)
        assert 0 < len(loads) < 100
        [whole] = saved(shown, tmp_path / "whole.html", size=int(found[1]))
    (south, west), (north, east) = part["bounds"]
    assert [west, south, east, north] == pytest.approx(bounds, abs=1e-3)
    with (
        xee_tf.explore(image, max_pixels=1000) as shown,
        pytest.raises(xee_tf.OptionError, match=r"at most 62: .* 256 × 256\. .*[Rr]aise max_pixels\."),
    ):
        shown.save(tmp_path / "map.html", size=64)
    assert max(part["pixels"].shape) == 400
    assert max(whole["pixels"].shape) == int(found[1])
    assert len(set(loads)) == 100


def test_a_part_of_some_layers(tmp_path: Path) -> None:
    near = classes(100, 100)
    far = near.assign_coords(x=near.x + 1e5)
    with xee_tf.explore({"near": near, "far": far}) as shown:
        (south, west), (north, east) = saved(shown, tmp_path / "both.html", size=64)[0]["bounds"]
        middle = (west + east) / 2
        [layer] = saved(
            shown, tmp_path / "one.html", size=64, bounds=[middle + 360, south, east + 360, north]
        )
        assert layer["name"] == "near"
        assert layer["bounds"][0][1] == pytest.approx(middle)
        with pytest.raises(
            xee_tf.OptionError, match=r"bounds=\(0, 0, 1, 1\) has no part of a layer: 'near' is"
        ):
            shown.save(tmp_path / "none.html", bounds=(0, 0, 1, 1))


def test_a_file_with_overviews_is_saved_from_these(tmp_path: Path) -> None:
    image = classes(1000, 900)
    xee_tf.to_cog(image, tmp_path / "map.tif")
    opened: Any = rioxarray.open_rasterio(tmp_path / "map.tif", chunks=256)
    with xee_tf.explore(opened.assign_attrs(image.attrs), max_pixels=256 * 256) as shown:
        [layer] = saved(shown, tmp_path / "map.html", size=500)
    assert layer["pixels"][..., 3].mean() > 200


def test_color_maps_have_their_legend(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ds = raster({"a": smooth(60, 60)})
    with xee_tf.explore(ds, vmin=-2, vmax=2) as shown:
        [layer] = saved(shown, tmp_path / "map.html", size=64)
    assert layer["legend"]["ends"] == ["-2", "2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "map.png"}, "path must be the name of an HTML file, such as map.html; got .*map.png"),
        ({"size": 63}, "size must be .*64.* got 63"),
        ({"size": 9000}, "size must be"),
        ({"bounds": (1, 2, 3)}, r"bounds must be west, south, east and north in degrees.*got \(1, 2, 3\)"),
        ({"bounds": (3, 2, 1, 4)}, "bounds must be"),
        ({"bounds": (0, 0, 1, math.nan)}, "bounds must be"),
        ({"bounds": "0123"}, "bounds must be"),
        ({"if_exists": "resume"}, "if_exists must be"),
    ],
)
def test_errors_of_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with xee_tf.explore(classes(60, 60)) as shown, pytest.raises(xee_tf.OptionError, match=message):
        shown.save(tmp_path / options.pop("path", "map.html"), **options)
    assert not list(tmp_path.iterdir())


def test_existing_files_failures_and_closed_maps(tmp_path: Path) -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("no memory")

    file = tmp_path / "map.html"
    image = classes(60, 60)
    with xee_tf.explore(image) as shown:
        shown.save(file, size=64)
        before = file.read_bytes()
        with pytest.raises(xee_tf.DestinationExistsError, match="overwrite"):
            shown.save(file)
        assert shown.save(file, size=128, if_exists="overwrite").name == "map.html"
    assert file.read_bytes() != before
    before = file.read_bytes()
    broken = image.copy(data=image.data.map_blocks(fail, dtype="u1", meta=np.empty((0, 0), "u1")))
    with xee_tf.explore(broken) as other, pytest.raises(RuntimeError, match="no memory"):
        other.save(file, if_exists="overwrite")
    assert file.read_bytes() == before
    with pytest.raises(xee_tf.OptionError, match="The map is closed"):
        shown.save(file, if_exists="overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["map.html"]
