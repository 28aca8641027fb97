"""Make the screenshots in the tutorials: ``python docs/screenshots.py [map] [dashboard]``.

The pictures are committed in the folder notebooks, because they need a browser and minutes. Look at them
after a run, and describe the dashboard in larger_than_memory.ipynb as it is then.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image
from selenium import webdriver

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def run_cells(name: str, end: str) -> tuple[InteractiveShell, str]:
    """Run the code of a notebook up to the cell that contains a text; return the text of this cell."""
    shell = InteractiveShell.instance()
    for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells:
        if end in cell.source:
            return shell, cell.source
        if cell.cell_type == "code":
            shell.run_cell(cell.source).raise_error()
    raise ValueError(f"{name} has no cell with {end!r}")


def open_browser(width: int, height: int) -> webdriver.Chrome:
    """Start Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},{height}"):
        options.add_argument(argument)
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def save(shot: bytes, name: str, top: int = 0, bottom: int | None = None) -> None:
    """Store the rows of a screenshot from top to bottom as a small file."""
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    image = image.crop((0, top, image.width, bottom or image.height))
    image = image.quantize(128, Image.Quantize.MAXCOVERAGE, kmeans=2)
    image.save(NOTEBOOKS / f"{name}.png", optimize=True)
    print(f"{name}.png: {(NOTEBOOKS / f'{name}.png').stat().st_size / 1e3:.0f} kB")


def show_map() -> None:
    """Run the quickstart, and the call of `explore` in its text."""
    shell, text = run_cells("quickstart", "xee_tf.explore(")
    [call] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shown: Any = shell.run_cell(call).result
    browser = open_browser(900, 640)
    browser.get(shown.url)
    browser.execute_script("exploredMap.setZoom(exploredMap.getZoom() + 1, {animate: false})")
    busy = "return busy.size || document.querySelector('.note').textContent"
    while time.sleep(1) or browser.execute_script(busy):
        pass
    save(browser.get_screenshot_as_png(), "map")
    browser.quit()
    shown.close()


def show_dashboard() -> None:
    """Run the prediction of larger_than_memory, and take the dashboard when three quarters have passed."""
    shell, text = run_cells("larger_than_memory", "xee_tf.predict_to_zarr(job.model, raster")
    client = shell.user_ns["client"]
    browser = open_browser(1200, 900)
    browser.get(client.dashboard_link)
    shots, done = [], threading.Event()

    def watch() -> None:
        while not done.wait(2):
            shots.append(browser.get_screenshot_as_png())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        shell.run_cell(text).raise_error()
    finally:
        done.set()
        watcher.join()
    save(shots[len(shots) * 3 // 4], "dashboard", 48, 715)  # without the menu
    browser.quit()
    client.close()


def main() -> None:
    """Make the screenshots that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="map, dashboard; both by default")
    names = parser.parse_args().names or ["map", "dashboard"]
    os.environ["XEE_TF_DATA"] = os.path.abspath(os.environ.get("XEE_TF_DATA", ".data"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in names:
            {"map": show_map, "dashboard": show_dashboard}[name]()
        os.chdir(NOTEBOOKS)


if __name__ == "__main__":
    main()
