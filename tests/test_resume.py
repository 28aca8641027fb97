"""Resume interrupted exports: only what is missing is computed, and only if everything else is the same."""

from __future__ import annotations

import os
import uuid
from contextlib import nullcontext

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xee_tf
from tests.conftest import every_bucket
from tests.kill_points import kill_points
from tests.rasters import raster
from tests.test_commits import files
from xee_tf.errors import DestinationError, DestinationExistsError, MissingShardError
from xee_tf.storage import Location

pytestmark = pytest.mark.usefixtures("small_blocks")
OPTIONS = {"patch_dimensions": 32, "max_file_size": 80_000, "if_exists": "resume"}
ROWS = 8  # chunks and shards do not end in the same rows


class Source:
    """An array that counts the chunks that are loaded, and can fail."""

    shape, dtype, ndim = (256, 256), np.dtype("f4"), 2

    def __init__(self, seed=0, fail_at=0, error=OSError):
        self.values = np.random.default_rng(seed).random(self.shape, dtype="f4")
        self.fail_at, self.error, self.loads = fail_at, error, 0

    def __getitem__(self, window):
        self.loads += 1
        if self.loads == self.fail_at:
            raise self.error("interrupted")
        return self.values[window]

    def __dask_tokenize__(self):
        return self.values.tobytes()

    def image(self):
        lazy = da.from_array(self, chunks=(256 // ROWS, 256), meta=np.empty((0, 0), "f4"), asarray=False)
        return raster({"B4": np.zeros(self.shape)}).assign(B4=(("y", "x"), lazy))


def export(source, prefix, **options):
    return source.image().tfexport(prefix, **OPTIONS | options)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("compressed", [True, False])
def test_only_missing_shards_are_computed(tmp_path, compressed, error):
    (tmp_path / "whole").mkdir()
    folder = tmp_path / "resumed"
    folder.mkdir()
    export(Source(), tmp_path / "whole" / "scene", compressed=compressed)
    with dask.config.set(scheduler="sync"), pytest.raises(error):
        export(Source(fail_at=6, error=error), folder / "scene", compressed=compressed)
    assert not [name for name in os.listdir(folder) if name[0] != "."]
    source = Source()
    result = export(source, folder / "scene", compressed=compressed)
    # The first shard, with two and a half rows of chunks, is complete.
    assert source.loads == ROWS - 2
    assert files(folder) == files(tmp_path / "whole")
    assert f"resumed   1 of {len(result.files)} shards were already complete" in repr(result)
    source = Source()
    again = export(source, folder / "scene", compressed=compressed)
    assert again == result
    assert source.loads == 0
    assert again.resumed == len(again.files)
    assert "all shards were already complete" in repr(again)


@pytest.mark.parametrize(
    ("fail_at", "advice"), [(1, "No shard was complete"), (6, "Complete shards are kept")]
)
def test_interruption_says_what_is_kept(tmp_path, fail_at, advice):
    source = Source(fail_at=fail_at, error=KeyboardInterrupt)
    with dask.config.set(scheduler="sync"), pytest.raises(KeyboardInterrupt) as caught:
        export(source, tmp_path / "scene")
    [note] = caught.value.__notes__
    assert note.startswith(advice)
    assert bool(os.listdir(tmp_path)) == (fail_at > 1)  # nothing is kept that cannot be used


@pytest.mark.parametrize("if_exists", ["error", "overwrite"])
def test_deleted_shards_have_a_warning(tmp_path, if_exists):
    """Unless it was requested that they are replaced."""
    with dask.config.set(scheduler="sync"), pytest.raises(KeyboardInterrupt):
        export(Source(fail_at=6, error=KeyboardInterrupt), tmp_path / "scene")
    message = (
        r"had kept for .*scene was deleted, because .* To continue .* call it with if_exists='resume'\.$"
    )
    with pytest.warns(UserWarning, match=message) if if_exists == "error" else nullcontext():
        export(Source(), tmp_path / "scene", if_exists=if_exists)
    export(Source(), tmp_path / "scene", if_exists="overwrite")


@every_bucket
def test_nothing_is_left_if_no_shard_is_complete(bucket, monkeypatch):
    monkeypatch.setattr("xee_tf.export.plan._BLOCKS_PER_THREAD", 0)  # upload a row before the next one
    kept = []
    for fail_at in (1, ROWS):
        with dask.config.set(scheduler="sync"), pytest.raises(OSError, match="interrupted"):
            export(Source(fail_at=fail_at), f"{bucket.url}/scene", storage_options=bucket.options)
        kept.append([*bucket.etags(), *bucket.uploads()])
    assert not kept[0]
    assert kept[1]


def test_readers_recognize_a_run_that_has_not_finished(tmp_path):
    class Watched(Source):
        def __getitem__(self, window):
            if self.loads == 5:
                with pytest.raises(MissingShardError, match=f"A run is writing {tmp_path}/scene: try again"):
                    xee_tf.inspect(tmp_path / "scene")
            return super().__getitem__(window)

    with dask.config.set(scheduler="sync"), pytest.raises(KeyboardInterrupt):
        export(Watched(fail_at=6, error=KeyboardInterrupt), tmp_path / "scene")
    for read in (xee_tf.inspect, xee_tf.open_image, xee_tf.verify):
        for name in ("scene", "scene-mixer.json", ""):
            if read is xee_tf.verify and name.endswith(".json"):
                continue  # it reports problems
            with pytest.raises(
                MissingShardError,
                match=f"writing {tmp_path}/scene was interrupted: run it again with if_exists='resume'",
            ):
                read(tmp_path / name)
    export(Watched(), tmp_path / "scene")
    xee_tf.inspect(tmp_path / "scene")


@pytest.mark.parametrize("finished", [True, False])
def test_differences_are_refused_and_named(tmp_path, finished):
    with dask.config.set(scheduler="sync"):
        if finished:
            export(Source(), tmp_path / "scene")
        else:
            with pytest.raises(OSError, match="interrupted"):
                export(Source(fail_at=6), tmp_path / "scene")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(DestinationExistsError, match="cannot be resumed: the input 'B4' is not the same"):
        export(Source(seed=1), tmp_path / "scene")
    with pytest.raises(DestinationExistsError, match="the option default_value was 0 and is now 7"):
        export(Source(), tmp_path / "scene", default_value=7)
    with pytest.raises(DestinationExistsError, match="the option kernel_size was"):
        export(Source(), tmp_path / "scene", kernel_size=3)
    with pytest.raises(DestinationExistsError, match="resumed: the bands were B4 and are now renamed"):
        Source().image().rename(B4="renamed").tfexport(tmp_path / "scene", **OPTIONS)
    other = Source().image().assign(B4=lambda image: image.B4.assign_attrs(units="m"))
    with pytest.raises(DestinationExistsError, match="units of the band 'B4' were None and are now m"):
        other.tfexport(tmp_path / "scene", **OPTIONS)
    with pytest.raises(
        DestinationExistsError, match=r"chunks of the input 'B4' were .32, 256. and are now .64, 256."
    ):
        Source().image().chunk(y=64).tfexport(tmp_path / "scene", **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    export(Source(seed=1), tmp_path / "scene", if_exists="overwrite")
    np.testing.assert_array_equal(xee_tf.open_image(tmp_path / "scene")["B4"], Source(seed=1).values)
    assert not [name for name in os.listdir(tmp_path) if name[0] == "."]


def test_an_export_that_was_not_resumable_is_refused(tmp_path):
    export(Source(), tmp_path / "scene", if_exists="error")
    with pytest.raises(DestinationExistsError, match="it was not written with if_exists='resume'"):
        export(Source(), tmp_path / "scene")


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("size", [0, 100, None])
def test_damaged_manifest_is_named(kind, size, tmp_path):
    def write(if_exists):
        if kind == "image":
            return export(Source(), tmp_path / "scene", if_exists=if_exists)
        frame = pd.DataFrame({"a": [1.0, 2.0]})
        return xee_tf.export_table(frame, tmp_path / "scene", if_exists=if_exists)

    manifest = tmp_path / write("resume").manifest.name
    data = manifest.read_bytes()
    manifest.write_bytes(data.replace(b"1.0", b"9.0") if size is None else data[:size])
    before = files(tmp_path)
    with pytest.raises(DestinationExistsError, match=r"scene-.* is damaged .*if_exists='overwrite'"):
        write("resume")
    assert files(tmp_path) == before
    write("overwrite")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: os.truncate(path, 1000), r"scene-00001\.tfrecord\.gz has 1,000 bytes instead of"),
        (os.remove, r"scene-00001\.tfrecord\.gz is missing"),
    ],
)
def test_damaged_export_is_named(damage, message, tmp_path):
    export(Source(), tmp_path / "scene")
    damage(tmp_path / "scene-00001.tfrecord.gz")
    with pytest.raises(DestinationExistsError, match=f"cannot be resumed: its file {message}"):
        export(Source(), tmp_path / "scene")


@pytest.mark.parametrize("place", [0, 0.5, -1])
@pytest.mark.parametrize("compute", [True, False])
@pytest.mark.parametrize("store", ["local", "memory"])
def test_damaged_shard_is_written_again(tmp_path, monkeypatch, store, compute, place):
    monkeypatch.setattr("xee_tf.export.plan._BLOCKS_PER_THREAD", 0)  # write a row before the next one
    folder = Location.of(tmp_path if store == "local" else f"memory://{uuid.uuid4().hex}")
    prefix = folder.child("scene").url
    with dask.config.set(scheduler="sync"), pytest.raises(OSError, match="interrupted"):
        export(Source(fail_at=ROWS), prefix)
    [staged] = map(folder.child, folder.entries())
    shard = staged.child("scene-00000.tfrecord.gz")
    data = bytearray(shard.read_bytes())
    data[int(place * len(data))] ^= 1
    shard.write_bytes(data)
    before = sorted(staged.entries())
    source = Source()
    found = export(source, prefix, compute=compute)
    if not compute:
        assert sorted(staged.entries()) == before
        found.compute()
    assert source.loads
    np.testing.assert_array_equal(xee_tf.open_image(prefix)["B4"], source.values)
    assert not xee_tf.verify(prefix).problems


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.long)])
def test_killed_exports_are_resumed(tmp_path, step):
    (tmp_path / "whole").mkdir()
    export(Source(), tmp_path / "whole" / "scene")
    whole = files(tmp_path / "whole")
    folder = tmp_path / "resumed"
    folder.mkdir()
    loads = []
    for _ in kill_points(lambda: export(Source(), folder / "scene"), folder, step=step):
        source = Source()
        export(source, folder / "scene")
        loads.append(source.loads)
        assert files(folder) == whole
    assert loads[0] == ROWS
    assert loads[-1] == 0


def test_steps_of_a_split_dimension(tmp_path):
    def steps(fail_at=0):
        sources = [Source(seed, fail_at) for seed in range(2)]
        return sources, xr.concat([each.image() for each in sources], pd.Index([3, 5], name="day"))

    with dask.config.set(scheduler="sync"), pytest.raises(OSError, match="interrupted"):
        steps(fail_at=ROWS)[1].tfexport(tmp_path / "scene", split_dim="day", **OPTIONS)
    sources, image = steps()
    results = image.tfexport(tmp_path / "scene", split_dim="day", **OPTIONS)
    assert sum(each.loads for each in sources) < 2 * ROWS
    assert steps()[1].tfexport(tmp_path / "scene", split_dim="day", **OPTIONS) == results
    for day, source in zip((3, 5), sources, strict=True):
        found = xee_tf.open_image(tmp_path / f"scene_{day}")["B4"]
        np.testing.assert_array_equal(found, source.values)
    assert not [name for name in os.listdir(tmp_path) if name[0] == "."]


@every_bucket
def test_resumed_in_buckets(bucket, monkeypatch):
    monkeypatch.setattr("xee_tf.export.plan._BLOCKS_PER_THREAD", 0)  # upload a row before the next one
    prefix, options = f"{bucket.url}/scene", {"storage_options": bucket.options}
    with dask.config.set(scheduler="sync"), pytest.raises(OSError, match="interrupted"):
        export(Source(fail_at=ROWS), prefix, **options)
    assert not [key for key in bucket.read() if key[0] != "."]
    source = Source()
    export(source, prefix, **options)
    assert source.loads < ROWS
    assert bucket.uploads() == []
    assert all(key[0] != "." for key in bucket.read())
    opened = xee_tf.open_image(prefix, **options)
    np.testing.assert_array_equal(opened["B4"], source.values)


def test_tables(tmp_path):
    pytest.importorskip("geopandas")
    rows = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    result = xee_tf.export_table(rows, tmp_path / "t", if_exists="resume")
    time = (tmp_path / "t.tfrecord.gz").stat().st_mtime_ns
    again = xee_tf.export_table(rows, tmp_path / "t", if_exists="resume")
    assert again == result
    assert "resumed" not in repr(result)
    assert "resumed  the table was already complete" in repr(again)
    assert (tmp_path / "t.tfrecord.gz").stat().st_mtime_ns == time
    with pytest.raises(DestinationExistsError, match="the input 'table' is not the same"):
        xee_tf.export_table(rows.assign(a=3.0), tmp_path / "t", if_exists="resume")
    with pytest.raises(DestinationExistsError, match="the option columns was None"):
        xee_tf.export_table(rows, tmp_path / "t", columns=["a"], if_exists="resume")


@pytest.mark.parametrize("compressed", [True, False])
def test_a_delayed_that_is_computed_twice_returns_the_same(tmp_path, compressed):
    delayed = export(Source(), tmp_path / "scene", compute=False, compressed=compressed)
    result = delayed.compute()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for _ in range(2):
        assert delayed.compute() == result
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert export(Source(), tmp_path / "scene", compressed=compressed) == result
    export(Source(seed=1), tmp_path / "scene", if_exists="overwrite", compressed=compressed)
    with pytest.raises(DestinationExistsError, match="was written after this run was planned"):
        delayed.compute()
    np.testing.assert_array_equal(xee_tf.open_image(tmp_path / "scene")["B4"], Source(seed=1).values)


def test_a_delayed_that_continues_is_computed_twice(tmp_path):
    with dask.config.set(scheduler="sync"), pytest.raises(OSError, match="interrupted"):
        export(Source(fail_at=6), tmp_path / "scene")
    source = Source()
    delayed = export(source, tmp_path / "scene", compute=False)
    result = delayed.compute()
    assert source.loads == ROWS - 2
    assert delayed.compute() == result
    assert not [name for name in os.listdir(tmp_path) if name[0] == "."]


def test_a_delayed_for_s3_is_computed_twice(bucket):
    prefix, options = f"{bucket.url}/scene", {"storage_options": bucket.options}
    delayed = export(Source(), prefix, compute=False, **options)
    result = delayed.compute()
    before = bucket.etags()
    assert delayed.compute() == result
    assert bucket.etags() == before
    assert bucket.uploads() == []


def test_two_delayeds_that_resume(tmp_path):
    same = [export(Source(), tmp_path / "same", compute=False) for _ in range(2)]
    first, second = dask.compute(*same, scheduler="sync")
    assert first == second
    others = [export(Source(seed), tmp_path / "other", compute=False) for seed in (0, 1)]
    with pytest.raises(DestinationExistsError, match="was written after this run was planned"):
        dask.compute(*others, scheduler="sync")
    found = xee_tf.open_image(tmp_path / "other")["B4"]
    assert any(np.array_equal(found, Source(seed).values) for seed in (0, 1))
    export(Source(), tmp_path / "other", if_exists="overwrite")
    assert not [name for name in os.listdir(tmp_path) if name[0] == "."]  # of the one that was refused


def test_a_delayed_table_is_computed_twice(tmp_path):
    pytest.importorskip("geopandas")
    rows = pd.DataFrame({"a": [1.0, 2.0]})
    delayed = xee_tf.export_table(rows, tmp_path / "t", if_exists="resume", compute=False)
    result = delayed.compute()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = delayed.compute()
    assert (again, again.resumed) == (result, True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_delayed_of_a_complete_export_checks_it_again(tmp_path):
    export(Source(), tmp_path / "scene")
    delayed = export(Source(), tmp_path / "scene", compute=False)
    result = export(Source(), tmp_path / "scene")
    assert delayed.compute() == result
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(DestinationError, match="was deleted after this run was planned"):
        delayed.compute()
    export(Source(seed=1), tmp_path / "scene")
    with pytest.raises(DestinationExistsError, match="the input 'B4' is not the same"):
        delayed.compute()


def test_a_delayed_of_a_complete_table_checks_it_again(tmp_path):
    frame = pd.DataFrame({"a": np.arange(50)})
    result = xee_tf.export_table(frame, tmp_path / "t", if_exists="resume")
    delayed = xee_tf.export_table(frame, tmp_path / "t", if_exists="resume", compute=False)
    assert delayed.compute() == result
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(DestinationError, match="was deleted after this run was planned"):
        delayed.compute()


def test_a_delayed_undoes_an_interrupted_commit_first(tmp_path):
    """A shard that was already in place is staged again before others are."""
    (tmp_path / "whole").mkdir()
    folder = tmp_path / "resumed"
    folder.mkdir()
    export(Source(), tmp_path / "whole" / "scene")
    interrupted = 0
    for point in kill_points(lambda: export(Source(), folder / "scene"), folder, step=7):
        if (folder / ".scene.commit").exists():
            interrupted += 1
            export(Source(), folder / "scene", compute=False).compute()
            assert files(folder) == files(tmp_path / "whole"), point.what
        else:
            export(Source(), folder / "scene")
    assert interrupted > 1
