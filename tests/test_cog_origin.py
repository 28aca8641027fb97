"""GeoTIFFs of predictions that tell what they were written from, so that a repeated call does nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.shutil import copy

import xee_tf
from tests.rasters import random_band, raster
from xee_tf.storage import Location
from xee_tf.upload import read_origin

TILE = 32
CALLS: list[int] = []


def image(add: int = 0) -> xr.Dataset:
    return raster({"B4": random_band((2 * TILE, 2 * TILE)) + np.float32(add)}).chunk(y=TILE, x=TILE)


def twice(pixels: Any) -> Any:
    CALLS.append(1)
    return pixels[..., 0] * 2


def predict(
    file: Any, ds: Any = None, function: Any = twice, if_exists: Any = "resume", **options: Any
) -> int:
    """Write a prediction and return the number of calls of the model."""
    model = xee_tf.Model.from_function(function, input_tile_size=TILE, output_bands=["p"])
    before = len(CALLS)
    xee_tf.predict_to_cog(model, image() if ds is None else ds, file, if_exists=if_exists, **options)
    return len(CALLS) - before


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / "p.tif"
    assert predict(file) > 0
    return file


def test_same_prediction_is_not_repeated(file: Path) -> None:
    before = file.stat()
    assert predict(file) == 0
    assert predict(file, batch_size=1, skip_masked=False) == 0  # without effect on values
    assert predict(file, nodata=None, overview_resampling="nearest") == 0
    assert file.stat() == before
    assert os.listdir(file.parent) == ["p.tif"]
    moved = shutil.copy(file, file.parent / "moved.tif")
    assert predict(moved) == 0


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"ds": image(1)}, "the input 'B4' is not the same as before"),
        ({"function": lambda pixels: pixels[..., 0]}, "the model is not the same as before (the code, "),
        ({"augment": "d4"}, "the option augment was None and is now d4"),
        ({"nodata": -1}, "the option nodata was None and is now -1"),
        ({"overview_resampling": "mean"}, "the option overview_resampling was nearest and is now mean"),
    ],
)
def test_other_prediction_is_refused(file: Path, options: Any, difference: str) -> None:
    before = file.read_bytes()
    with pytest.raises(xee_tf.DestinationExistsError) as caught:
        predict(file, **options)
    message = str(caught.value)
    assert message.startswith(f"{file} exists and cannot be resumed: {difference}")
    assert message.endswith("Choose another name, or replace it with if_exists='overwrite'.")
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["p.tif"]


def changed(how: str, file: Path) -> None:
    """Change a file as other programs do."""
    if how == "pixels":
        with rasterio.open(file, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as opened:
            opened.write(np.ones((TILE, TILE), "f4"), 1, window=((0, TILE), (0, TILE)))
    elif how == "tags":
        with rasterio.open(file, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as opened:
            opened.update_tags(made_by="another program")
    elif how == "converted":
        other = file.parent.parent / "other.tif"
        copy(file, other, driver="COG")
        shutil.move(other, file)
    elif how == "other raster":
        note = file.read_bytes()[-2000:]
        predict(file, image(1), if_exists="overwrite")
        file.write_bytes(file.read_bytes() + note)
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif how == "tile moved":
        data = bytearray(file.read_bytes())
        data[600] ^= 1
        file.write_bytes(data)
    elif how == "written without resume":
        predict(file, if_exists="overwrite")
    elif how == "empty":
        file.write_bytes(b"")


@pytest.mark.parametrize(
    "how",
    ["pixels", "tags", "converted", "other raster", "cut", "tile moved", "written without resume", "empty"],
)
def test_changed_file_is_not_taken_for_ours(file: Path, how: str) -> None:
    changed(how, file)
    before = file.read_bytes()
    with pytest.raises(xee_tf.DestinationExistsError, match="resumed: it does not tell what it was"):
        predict(file)
    assert file.read_bytes() == before


def test_note_has_no_paths_and_readers_do_not_see_it(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "another folder" / "q.tif"
    other.parent.mkdir()
    predict(other)
    assert other.read_bytes() == file.read_bytes()
    plain = tmp_path / "plain.tif"
    predict(plain, if_exists="error")
    data = plain.read_bytes()
    assert file.read_bytes().startswith(data)
    note = file.read_bytes()[len(data) :]
    assert str(tmp_path).encode() not in note
    assert read_origin(Location.of(plain)) is None
    with rasterio.open(file) as ours, rasterio.open(plain) as theirs:
        assert ours.tags() == theirs.tags()
        np.testing.assert_array_equal(ours.read(), theirs.read())


def test_long_note_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xee_tf.upload.cog.origin._TAIL", 64)
    assert predict(file) == 0


def test_side_files_belong_to_it(tmp_path: Path) -> None:
    outputs: Any = {"class": {"argmax": ["forest", "water"]}}

    def scores(pixels: Any) -> Any:
        CALLS.append(1)
        return np.stack([pixels[..., 0], 1 - pixels[..., 0]], axis=-1)

    model = xee_tf.Model.from_function(scores, unit="pixel", output_bands=outputs)
    for _ in range(2):
        xee_tf.predict_to_cog(model, image(), tmp_path / "p.tif", if_exists="resume")
        before = len(CALLS)
    assert {path.name for path in tmp_path.iterdir()} == {"p.tif", "p.tif.aux.xml"}
    (tmp_path / "p.tif.aux.xml").unlink()
    with pytest.raises(xee_tf.DestinationExistsError, match=r"p\.tif\.aux\.xml, which belongs to it"):
        xee_tf.predict_to_cog(model, image(), tmp_path / "p.tif", if_exists="resume")
    assert len(CALLS) == before


def test_inputs_that_cannot_be_compared_leave_no_note(tmp_path: Path) -> None:
    import dask
    import dask.array as da

    def delayed() -> xr.Dataset:
        values = da.from_delayed(dask.delayed(np.array)(random_band((TILE, TILE))), (TILE, TILE), "f4")
        return raster({"B4": random_band((TILE, TILE))}).assign(B4=(("y", "x"), values))

    predict(tmp_path / "p.tif", delayed())
    assert read_origin(Location.of(tmp_path / "p.tif")) is None
    predict(tmp_path / "q.tif", delayed(), identity="1")
    assert predict(tmp_path / "q.tif", delayed(), identity="1") == 0
    with pytest.raises(xee_tf.DestinationExistsError, match="the option identity was '1' and is now '2'"):
        predict(tmp_path / "q.tif", delayed(), identity="2")
