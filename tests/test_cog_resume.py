"""Predictions that are written to a GeoTIFF: one pass of the model, and what an interrupted run leaves."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr

import xee_tf
from tests.buckets import Bucket
from tests.conftest import every_bucket, needs_posix
from tests.kill_points import kill_points
from tests.rasters import random_band, raster

SIDE, TILE = 96, 32
CHUNKS = SIDE // TILE  # rows of tiles
TILES = CHUNKS**2
BANDS = random_band((SIDE, SIDE))
BANDS[:TILE, :TILE] = np.nan  # a chunk that is not written


def image(seed: int = 0) -> xr.Dataset:
    return raster({"B4": BANDS + np.float32(seed)}).chunk(y=TILE, x=TILE)


class Counted:
    """Return two bands, record each call as a file in a folder, and fail where a file says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, pixels: Any) -> dict[str, Any]:
        number = len(list(self.folder.glob("call-*")))
        failing = self.folder / f"fail-{number}"
        (self.folder / f"call-{number}").touch()
        if failing.exists():
            raise KeyboardInterrupt if failing.read_text() == "Ctrl-C" else RuntimeError("interrupted")
        return {"twice": pixels[..., 0] * 2, "class": pixels[..., 0] > 0.5}


class Run:
    """A model that counts its calls and may fail, and the folders it works in."""

    def __init__(self, folder: Path) -> None:
        self.calls, self.out = folder / "calls", folder / "out"
        self.calls.mkdir()
        self.out.mkdir()

    @property
    def file(self) -> Path:
        return self.out / "p.tif"

    @property
    def count(self) -> int:
        return len(list(self.calls.glob("call-*")))

    @property
    def finished(self) -> int:
        """Number of tiles in chunks that an interrupted run has finished."""
        store = ".p.tif-*/predictions.zarr"
        if list(self.out.glob(f"{store}/zarr.json")):
            return TILES
        return CHUNKS * len(list(self.out.glob(f"{store}/.xee_tf/finished/[0-9]*")))

    def fail_at(self, number: int, how: str = "") -> None:
        (self.calls / f"fail-{number}").write_text(how)

    def model(self, **options: Any) -> xee_tf.Model:
        outputs = {"twice": "float32", "class": "uint8"}
        return xee_tf.Model.from_function(
            Counted(self.calls), input_tile_size=TILE, output_bands=outputs, **options
        )

    def predict(self, if_exists: Any = "resume", to: Any = None, ds: Any = None, **options: Any) -> Any:
        ds = image() if ds is None else ds
        with dask.config.set(scheduler="sync"), mock.patch("xee_tf.blocks.sizing._BLOCK_BYTES", (1, 1)):
            return xee_tf.predict_to_cog(
                self.model(),
                ds,
                to or self.file,
                if_exists=if_exists,
                **{"batch_size": 1, "skip_masked": False, **options},
            )

    def interrupt(self, number: int = 5, **options: Any) -> None:
        self.fail_at(number)
        with pytest.raises(xee_tf.PredictionError, match="interrupted"):
            self.predict(**options)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def image_bytes(data: bytes) -> bytes:
    """Return the bytes of a file without the note of what it was written from."""
    note = data.rfind(b'{"identity"')
    return data if note < 0 else data[:note]


def whole(run: Run, ds: xr.Dataset | None = None) -> bytes:
    """Return the file that an uninterrupted run writes, without the note of what it was written from."""
    (other := run.out.parent / "whole").mkdir()
    whole = Run(other)
    whole.predict("error", ds=ds)
    return whole.file.read_bytes()


@pytest.mark.parametrize("if_exists", ["error", "overwrite", "resume"])
def test_all_bands_and_overviews_come_from_one_pass(run: Run, if_exists: str) -> None:
    run.predict(if_exists)
    assert run.count == TILES
    assert os.listdir(run.out) == ["p.tif"]
    with rasterio.open(run.file) as file:
        twice, classes = file.read()
        assert file.nodata is not None
        assert np.isnan(file.nodata)
        np.testing.assert_array_equal(twice, BANDS * 2)
        np.testing.assert_array_equal(classes, np.where(np.isnan(BANDS), np.nan, BANDS > 0.5))
    assert image_bytes(run.file.read_bytes()) == whole(run)


def test_finished_predictions_are_not_repeated(run: Run) -> None:
    left = TILES
    for number in (4, 10):
        before = run.count
        run.interrupt(number)
        assert number + 1 - before <= left
        assert run.finished > 0
        assert TILES - run.finished < left
        left = TILES - run.finished
    before = run.count
    run.predict()
    assert run.count == before + left
    assert os.listdir(run.out) == ["p.tif"]
    assert image_bytes(run.file.read_bytes()) == whole(run)


@pytest.mark.parametrize(
    ("number", "if_exists", "note"),
    [
        (5, "resume", r"^1 of 3 chunks of predictions are kept in .*/out/\.p\.tif-.*: run it again with "),
        (0, "resume", r"^No chunk was finished\. Run it again\.$"),
        (
            5,
            "error",
            r"^Temporary files were deleted, and nothing else was changed\. .* with if_exists='resume'\.$",
        ),
    ],
)
def test_interruption_leaves_what_the_option_says(run: Run, number: int, if_exists: str, note: str) -> None:
    run.fail_at(number, "Ctrl-C")
    with pytest.raises(KeyboardInterrupt) as caught:
        run.predict(if_exists)
    found = " ".join(caught.value.__notes__)
    assert re.search(note, found), found
    assert bool(os.listdir(run.out)) == found.startswith("1")


def test_errors_say_what_is_kept(run: Run) -> None:
    run.fail_at(0)
    with pytest.raises(xee_tf.PredictionError) as caught:
        run.predict()
    assert not getattr(caught.value, "__notes__", [])  # nothing is kept
    run.fail_at(8)
    with pytest.raises(xee_tf.PredictionError) as caught:
        run.predict()
    [folder] = run.out.iterdir()
    [note] = caught.value.__notes__
    kept = f"2 of 3 chunks of predictions are kept in {folder}: "
    assert note == f"{kept}run it again with if_exists='resume' to continue."
    assert run.finished == 2 * CHUNKS
    with pytest.raises(xee_tf.OptionError) as wrong:  # of the GeoTIFF
        run.predict(nodata=1e300)
    [folder] = run.out.iterdir()
    assert wrong.value.__notes__[0].startswith(f"2 of 3 chunks of predictions are kept in {folder}: ")


def test_file_is_written_again_from_finished_predictions(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodata, overviews and options without effect on predictions may change."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("xee_tf.upload.cog.writer.copy_tiles", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            run.predict()
    assert [note[:23] for note in caught.value.__notes__] == ["3 of 3 chunks of predic"]
    assert run.count == TILES
    assert [name[:7] for name in os.listdir(run.out)] == [".p.tif-"]  # tiles are not kept
    run.predict(overview_resampling="mode", nodata=-1, skip_masked=True, batch_size=4)
    assert run.count == TILES
    assert os.listdir(run.out) == ["p.tif"]
    with rasterio.open(run.file) as file:
        np.testing.assert_array_equal(file.read(1), np.nan_to_num(BANDS * 2, nan=-1))


def test_classes_of_single_pixels_keep_their_names(tmp_path: Path) -> None:
    def scores(pixels: Any) -> Any:
        return np.stack([pixels[..., 0], 1 - pixels[..., 0]], axis=-1)

    outputs: Any = {"class": {"argmax": ["forest", "water"], "confidence": True}}
    model = xee_tf.Model.from_function(scores, unit="pixel", output_bands=outputs)
    written = []
    for if_exists in ("error", "resume"):
        (folder := tmp_path / if_exists).mkdir()
        xee_tf.predict_to_cog(model, image(), folder / "p.tif", if_exists=if_exists)  # type: ignore[arg-type]
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert set(written[0]) == {"p.tif", "p.tif.aux.xml"}
    written[1]["p.tif"] = image_bytes(written[1]["p.tif"])
    assert written[0] == written[1]


def test_other_predictions_are_refused(run: Run) -> None:
    run.interrupt()
    before = {path: path.stat().st_mtime_ns for path in run.out.rglob("*")}
    for options, difference in (
        ({"ds": image(1)}, "the input 'B4' is not the same as before"),
        ({"resampling": "bilinear"}, "the option resampling was nearest and is now bilinear"),
    ):
        for if_exists in ("resume", "error"):
            with pytest.raises(xee_tf.DestinationExistsError, match=f"resumed: .*{difference}") as e:
                run.predict(if_exists, **options)
            assert str(e.value).endswith("That would delete its 1 finished chunk of predictions.")
    assert {path: path.stat().st_mtime_ns for path in run.out.rglob("*")} == before
    assert run.count == 6
    run.predict("overwrite", ds=image(1))
    assert os.listdir(run.out) == ["p.tif"]
    assert run.count == 6 + TILES


@needs_posix
@pytest.mark.parametrize(("if_exists", "has_store"), [("error", True), ("resume", False)])
def test_other_predictions_without_a_finished_chunk_are_deleted(
    run: Run, if_exists: str, has_store: bool
) -> None:
    """A process that is killed leaves them, at first without a store; nothing is lost."""
    next(kill_points(lambda: run.predict(ds=image(1)), run.out, first=11))
    [folder] = run.out.iterdir()
    store = folder / "predictions.zarr"
    assert (folder / "identity.json").exists()
    assert (run.finished, store.exists()) == (0, True)
    if not has_store:
        shutil.rmtree(store)
    run.predict(if_exists)
    assert os.listdir(run.out) == ["p.tif"]
    with rasterio.open(run.file) as file:
        np.testing.assert_array_equal(file.read(1), BANDS * 2)


def test_what_other_writers_keep_is_not_deleted(run: Run) -> None:
    run.interrupt()
    [kept] = run.out.iterdir()
    (kept / "predictions.zarr").rename(kept / "p.tif-00000.tfrecord")
    with pytest.raises(xee_tf.DestinationExistsError, match="the input 'B4' is not the same as before"):
        run.predict(ds=image(1))
    assert (kept / "p.tif-00000.tfrecord").exists()


def test_kept_predictions_are_used_unless_the_file_is_overwritten(run: Run) -> None:
    run.interrupt()
    left, before = TILES - run.finished, run.count
    run.predict("error")
    assert run.count == before + left < before + TILES
    assert os.listdir(run.out) == ["p.tif"]
    assert image_bytes(run.file.read_bytes()) == whole(run)
    os.remove(run.file)
    run.interrupt(run.count + 5)
    before = run.count
    run.predict("overwrite")
    assert run.count == before + TILES
    assert os.listdir(run.out) == ["p.tif"]
    with pytest.raises(xee_tf.DestinationExistsError, match="it does not tell what it was written from"):
        run.predict()


def test_inputs_that_cannot_be_compared_need_an_identity(run: Run) -> None:
    def delayed() -> xr.Dataset:
        values = da.from_delayed(dask.delayed(np.array)(BANDS), BANDS.shape, "f4")
        return image().assign(B4=(("y", "x"), values.rechunk(TILE)))

    run.interrupt(ds=delayed())
    with pytest.raises(xee_tf.DestinationExistsError, match=r"whether the input 'B4' is the same .*delayed"):
        run.predict(ds=delayed())
    run.predict("overwrite")
    run.file.unlink()
    before = run.count
    run.interrupt(before + 4, ds=delayed(), identity="1")
    run.predict(ds=delayed(), identity="1")
    assert run.count < before + 5 + TILES


def test_bands_are_checked_before_they_are_predicted(run: Run) -> None:
    with pytest.raises(xee_tf.OptionError, match="overview_resampling names the band 'other'"):
        run.predict(overview_resampling={"other": "mode"})
    names = {"twice": "float32", "class": "uint8", " odd": "uint8"}
    model = xee_tf.Model.from_function(Counted(run.calls), input_tile_size=TILE, output_bands=names)
    with pytest.raises(xee_tf.OptionError, match="The name ' odd' cannot describe a band"):
        xee_tf.predict_to_cog(model, image(), run.file, if_exists="resume")
    with pytest.raises(xee_tf.OptionError, match="identity must be a text"):
        run.predict(identity=7)
    assert run.count == 0
    assert os.listdir(run.out) == []


@pytest.mark.parametrize("if_exists", ["error", "resume"])
def test_options_by_band_name_all_bands_that_are_written(if_exists: Any, tmp_path: Path) -> None:
    model = xee_tf.Model.from_function(
        lambda pixels: pixels[..., 0] + 1, input_tile_size=TILE, output_bands={"p": "float32"}
    )
    how: Any = {"augment": "d4", "if_exists": if_exists, "overview_resampling": {"p_spread": "mean"}}
    file = xee_tf.predict_to_cog(model, image(), tmp_path / "p.tif", nodata={"p_spread": -5}, **how)
    with rasterio.open(file) as opened:
        assert (opened.descriptions, opened.nodata) == (("p", "p_spread"), -5)
    how["overview_resampling"] = {"q_spread": "mean"}
    message = "names the band 'q_spread', which is not written. The bands are 'p', 'p_spread'"
    with pytest.raises(xee_tf.OptionError, match=message):
        xee_tf.predict_to_cog(model, image(), tmp_path / "q.tif", **how)
    assert os.listdir(tmp_path) == ["p.tif"]


def test_disk_that_may_be_too_small(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xee_tf.predict.keeping.disk_usage", lambda _: (1000, 10_000))
    run.fail_at(5)
    with (
        pytest.warns(UserWarning, match=r"predictions need up to 45\.00 kiB .* has 0\.98 kiB\..* omit if_ex"),
        pytest.raises(xee_tf.PredictionError),
    ):
        run.predict()
    monkeypatch.setattr("xee_tf.predict.keeping.disk_usage", lambda _: (30_000, 40_000))
    message = r"missing predictions need up to 30\.00 kiB .* has 29\.30 kiB\..* free some space\.$"
    with pytest.warns(UserWarning, match=message):  # of two of three chunks
        run.interrupt(run.count)
    monkeypatch.setattr("xee_tf.predict.keeping.disk_usage", lambda _: (31_000, 40_000))
    run.predict()


@needs_posix
@pytest.mark.parametrize(("first", "step"), [(37, 45), pytest.param(1, 1, marks=pytest.mark.long)])
def test_killed_before_every_change(run: Run, first: int, step: int) -> None:
    """The next run writes the same file, and predicts only what had not been finished."""
    expected = whole(run)
    points = 0
    for point in kill_points(run.predict, run.out, first=first, step=step):
        points += 1
        if run.file.exists():
            assert image_bytes(run.file.read_bytes()) == expected, point.what
            before = run.count
            run.predict()
            assert run.count == before, point.what
            assert os.listdir(run.out) == ["p.tif"], point.what
        else:
            expected_calls = run.count + TILES - run.finished
            run.predict()
            assert run.count <= expected_calls, point.what
            assert image_bytes(run.file.read_bytes()) == expected, point.what
            assert os.listdir(run.out) == ["p.tif"], point.what
        for call in run.calls.iterdir():
            call.unlink()
    assert points >= 3


@every_bucket
def test_run_in_a_bucket_is_continued(run: Run, bucket: Bucket) -> None:
    ds = image().isel(y=slice(TILE, None))
    how: Any = {"ds": ds, "to": f"{bucket.url}/p.tif", "storage_options": bucket.options}
    run.interrupt(4, **how)
    assert any("predictions.zarr" in name for name in bucket.etags())
    run.predict(**how)
    assert run.count < 5 + 6  # of six tiles
    [(name, data)] = bucket.read().items()
    assert (name, image_bytes(data)) == ("p.tif", whole(run, ds))
    before = run.count
    run.predict(**how)  # the file is complete
    assert run.count == before
    assert bucket.read() == {"p.tif": data}
    with pytest.raises(xee_tf.DestinationExistsError, match="the input 'B4' is not the same as before"):
        run.predict(**how | {"ds": ds + 1})
