"""A map in a browser: what is on the screen are the pixels of the prediction, at their places."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import dask.array as da
import numpy as np
import pytest

pytest.importorskip("selenium")
pytest.importorskip("matplotlib")

import xarray as xr
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.warp import transform
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

import xee_tf
from xee_tf import demo

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and its driver")

NAMES = [name for name, _ in demo.CLASSES.values()]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,800"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def scene(data_dir: Any) -> xr.Dataset:
    return demo.open_scene(demo.find_data(data_dir))


def probabilities(tiles: np.ndarray) -> np.ndarray:
    """Return a probability of each class, which depends on the pixel only."""
    weights = np.random.default_rng(5).normal(size=(tiles.shape[-1], len(NAMES)))
    scores = (tiles - tiles.mean(axis=-1, keepdims=True)) @ weights / 20
    found = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return found / found.sum(axis=-1, keepdims=True)


def wait(browser: Any) -> None:
    """Wait until all tiles are there."""
    end = time.monotonic() + 60
    time.sleep(0.2)
    while browser.execute_script("return busy.size || document.querySelector('.note').textContent"):
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.1)


def screen(browser: Any) -> np.ndarray:
    data = browser.get_screenshot_as_png()
    with MemoryFile(data) as file, pytest.warns(NotGeoreferencedWarning):
        return file.open().read()[:3].transpose(1, 2, 0)


def pixels_on_screen(browser: Any, image: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Return positions on the map (column, row), in a grid, and the column and row of the image there."""
    size = browser.execute_script("const s = exploredMap.getSize(); return [s.x, s.y]")
    columns, rows = (np.linspace(20, side - 20, 60).astype(int) for side in size)
    places = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    places = places[(places[:, 0] < size[0] - 270) & (places[:, 0] > 60)]  # beside the panels
    found = browser.execute_script(
        "return arguments[0].map(([x, y]) => {"
        "const at = exploredMap.containerPointToLatLng([x + 0.5, y + 0.5]); return [at.lng, at.lat]})",
        places.tolist(),
    )
    x, y = transform("EPSG:4326", image.rio.crs, *np.array(found).T)
    return places, np.column_stack(~image.rio.transform() * (np.array(x), np.array(y)))


def compare(browser: Any, image: xr.DataArray, colors: dict[int, str]) -> int:
    """Compare the screen with a map of classes, away from the edges of pixels; return how many agree."""
    places, pixels = pixels_on_screen(browser, image)
    shown = screen(browser)[places[:, 1], places[:, 0]]
    at = np.floor(pixels).astype(int)
    height, width = image.shape
    inside = ((at > 2) & (at < (width - 3, height - 3))).all(axis=1)  # the outline is drawn along the edge
    inside &= (np.abs(pixels - at - 0.5) < 0.4).all(axis=1)
    numbers = image.values[at[inside, 1], at[inside, 0]]
    expected = np.array([list(bytes.fromhex(colors.get(int(n), "#f4f4f2")[1:])) for n in numbers])
    agree = (np.abs(shown[inside].astype(int) - expected) <= 1).all(axis=1)
    assert agree.mean() > 0.995, (agree.mean(), len(agree))
    return len(set(numbers.tolist()))


def test_the_screen_shows_the_prediction(browser: Any, scene: xr.Dataset, tmp_path: Any) -> None:
    log = tmp_path / "tiles"

    def predict(tiles: np.ndarray) -> np.ndarray:
        with log.open("a") as file:
            file.write(f"{len(tiles)}\n")
        return probabilities(tiles)

    model = xee_tf.Model.from_function(
        predict, bands=demo.BANDS, input_tile_size=64, output_bands=NAMES, input_overlap_size=16
    )
    predicted = model.predict_image(scene, merge=False)
    colors = dict(demo.CLASSES.values())
    classes = xee_tf.class_map(predicted, values=list(demo.CLASSES), colors=colors, nodata=0)
    layers = {"scene": scene, "forest": predicted, "land cover": classes}
    with xee_tf.explore(layers, rgb={"scene": ["nir", "red", "green"]}, band={"forest": "forest"}) as shown:
        assert not log.exists()
        browser.get(shown.url)
        wait(browser)
        whole = sum(map(int, log.read_text().split()))
        expected = classes.compute()
        by_number = {number: color for number, (_, color) in demo.CLASSES.items()}
        before = log.read_text()
        panel = browser.find_element(By.CSS_SELECTOR, ".layers").text.split("\n")
        assert [text for text in panel if text in NAMES] == ["forest", *NAMES]  # a layer, and the classes

        assert compare(browser, expected, by_number) >= 4
        for _ in range(2):
            browser.find_element(By.CSS_SELECTOR, ".leaflet-control-zoom-in").click()
            wait(browser)
        assert compare(browser, expected, by_number) >= 4
        drag = ActionChains(browser).move_to_element(browser.find_element(By.ID, "map"))
        drag.click_and_hold().move_by_offset(-150, 90).release().perform()
        wait(browser)
        assert compare(browser, expected, by_number) >= 4
        browser.find_element(By.CSS_SELECTOR, ".leaflet-control-zoom-out").click()
        wait(browser)
        assert log.read_text() == before  # everything is in the cache
        rows, columns = (-(-scene.sizes[dim] // 64) for dim in ("y", "x"))
        assert whole <= 2 * rows * columns  # two layers, which share no chunk

        # The scene under the other layers, at its own colors.
        for number in (2, 1):
            browser.find_elements(By.CSS_SELECTOR, "input[type=checkbox]")[number].click()
        wait(browser)
        places, pixels = pixels_on_screen(browser, expected)
        at = np.floor(pixels).astype(int)
        height, width = expected.shape
        inside = ((at >= 0) & (at < (width, height))).all(axis=1)
        red = screen(browser)[places[inside, 1], places[inside, 0], 0].astype(float)
        nir = scene["nir"].values[at[inside, 1], at[inside, 0]]
        valid = ~np.isnan(nir)
        assert np.corrcoef(red[valid], nir[valid])[0, 1] > 0.9
        severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert severe == []


def test_a_saved_map_opens_without_a_server(browser: Any, scene: xr.Dataset, tmp_path: Any) -> None:
    model = xee_tf.Model.from_function(
        probabilities, bands=demo.BANDS, input_tile_size=64, output_bands=NAMES, input_overlap_size=16
    )
    colors = dict(demo.CLASSES.values())
    predicted = model.predict_image(scene, merge=False)
    classes = xee_tf.class_map(predicted, values=list(demo.CLASSES), colors=colors, nodata=0)
    with xee_tf.explore({"scene": scene, "land cover": classes}, rgb={"scene": demo.BANDS[:3]}) as shown:
        shown.save(tmp_path / "map.html", size=3000)
    browser.get((tmp_path / "map.html").as_uri())
    wait(browser)
    panel = browser.find_element(By.CSS_SELECTOR, ".layers").text.split("\n")
    assert panel == ["scene", "land cover", *NAMES]
    both = screen(browser)[200:600, 300:700]
    assert len(np.unique(both.reshape(-1, 3), axis=0)) > len(NAMES)
    browser.find_elements(By.CSS_SELECTOR, "input[type=checkbox]")[0].click()
    for _ in range(3):  # Leaflet rounds the place of a picture to pixels of the screen
        browser.find_element(By.CSS_SELECTOR, ".leaflet-control-zoom-in").click()
    wait(browser)
    by_number = {number: color for number, (_, color) in demo.CLASSES.items()}
    assert compare(browser, classes.compute(), by_number) >= 4
    browser.find_elements(By.CSS_SELECTOR, "input[type=checkbox]")[1].click()
    wait(browser)
    assert len(np.unique(screen(browser)[200:600, 300:700].reshape(-1, 3), axis=0)) < 4  # nothing is left
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_notes_of_a_large_raster_and_of_errors(browser: Any) -> None:
    n = 20_000
    loads: list[tuple[int, int]] = []

    def load(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        (top, _), (left, _) = block_info[0]["array-location"]
        loads.append((top, left))
        if left >= n // 2:
            raise RuntimeError("no <b>memory</b>")
        return block + np.uint8(1)

    array = da.zeros((n, n), chunks=500, dtype="u1").map_blocks(load, dtype="u1", meta=np.empty((0, 0), "u1"))
    image = xr.DataArray(
        array,
        {"y": 5.2e6 - 10 * np.arange(n), "x": 4e5 + 10 * np.arange(n)},
        ("y", "x"),
        attrs={"flag_values": [1], "flag_meanings": "all", "flag_colors": "#ff0000", "crs": "EPSG:32633"},
    )
    with xee_tf.explore({"<i>all</i>": image}) as shown:
        browser.get(shown.url)
        until(lambda: "no <b>memory</b>" in note(browser) and "Computing" not in note(browser))
        assert note(browser) == "<i>all</i>: RuntimeError: no <b>memory</b>"
        pixels = screen(browser)
        assert pixels[100, 300].tolist() == [255, 0, 0]  # the left half
        assert pixels[100, 700].tolist() == [0xF4, 0xF4, 0xF2]
        assert len(set(loads)) < 40  # of 1,600
        count = len(loads)
        browser.find_element(By.CSS_SELECTOR, ".leaflet-control-zoom-out").click()
        until(lambda: "Zoom in to see <i>all</i>" in note(browser))
        time.sleep(0.3)
        assert len(loads) == count
        assert screen(browser)[100, 300].tolist() == [0xF4, 0xF4, 0xF2]
    browser.find_element(By.CSS_SELECTOR, ".leaflet-control-zoom-in").click()
    until(lambda: "The map was closed" in note(browser))


def note(browser: Any) -> str:
    return browser.find_element(By.CSS_SELECTOR, ".note").text


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
