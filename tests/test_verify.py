"""Tests of `xee_tf.verify` and ``xee-tf inspect --verify``."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.foreign import frame, write_export
from tests.rasters import random_band, raster
from tests.strategies import examples
from xee_tf.errors import RecordError
from xee_tf.reading import verifying as module
from xee_tf.reading.features import open_files
from xee_tf.reading.options import ReadOptions
from xee_tf.records import Feature, RecordLayout, encode_records
from xee_tf.records.framing import frame_header
from xee_tf.shards.inflate import inflate_stream
from xee_tf.storage import Location
from xee_tf_cli import main

OPTIONS = {"patch_dimensions": 8, "kernel_size": (3, 1), "max_file_size": 6000}


def scene(seed=0):
    ds = raster({"B4": random_band((32, 32), seed=seed), "dem": random_band((32, 32), "int16", seed=seed)})
    ds["ndvi"] = (("time", "y", "x"), random_band((2, 32, 32), seed=seed))
    return ds


EXPORTS = {
    "gzip": {},
    "plain": {"compressed": False},
    "int64": {"feature_types": "band", "compressed": False},
    "series": {"sequence_data": True, "kernel_size": 1},
    "ragged": {"sequence_data": True, "kernel_size": 1, "drop_masked_steps": True},
    "dropped": {"masked_threshold": 0.9},
}


@pytest.mark.parametrize("kind", list(EXPORTS))
def test_new_exports_have_no_problems(tmp_path, kind):
    ds = scene()
    ds["ndvi"][0, :3, :5] = np.nan
    ds["B4"][:9] = np.nan
    result = ds.tfexport(tmp_path / "s", **{**OPTIONS, **EXPORTS[kind]})
    report = xee_tf.verify(result)
    assert report.problems == ()
    assert report.ok
    assert report.described
    assert (report.files, report.records, report.bytes) == (len(result.files), result.records, result.bytes)
    report.raise_for_problems()
    assert repr(report).startswith("<xee_tf.Verification: ok>")


def test_the_size_of_pieces_does_not_matter(tmp_path, monkeypatch):
    result = scene().tfexport(tmp_path / "s", **OPTIONS)
    plain = scene().tfexport(tmp_path / "p", **OPTIONS, compressed=False, feature_types="band")
    for size in (1 << 10, 37, 5000):
        monkeypatch.setattr(module, "_PIECE", size)
        for each in (result, plain):
            report = xee_tf.verify(each)
            assert report.problems == ()
            assert report.records == 16


@given(st.data())
@examples(25)
def test_every_changed_byte_is_found(exported, data):
    result, contents = exported
    name = data.draw(st.sampled_from(sorted(contents)))
    content = bytearray(contents[name])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path = Path(result.mixer.path).parent / name
    try:
        path.write_bytes(content)
        report = xee_tf.verify(result)
        assert not report.ok
        assert any(name in problem for problem in report.problems)
        path.write_bytes(contents[name][:place])
        assert not xee_tf.verify(result).ok
    finally:
        path.write_bytes(contents[name])


@pytest.fixture(scope="module", params=["gzip", "plain"])
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    result = scene().tfexport(folder / "s", **{**OPTIONS, **EXPORTS[request.param]})
    return result, {Path(file.path).name: Path(file.path).read_bytes() for file in result.files}


def test_all_problems_are_reported(tmp_path):
    result, other = scene().tfexport(tmp_path / "a" / "s", **OPTIONS), scene(1)
    other = other.tfexport(tmp_path / "b" / "s", **OPTIONS)
    files = [Path(file.path) for file in result.files]
    files[0].unlink()
    files[1].write_bytes(Path(other.files[1].path).read_bytes())
    files[2].write_bytes(files[2].read_bytes()[:-9])
    (tmp_path / "a" / f"s-{len(files):05d}.tfrecord.gz").write_bytes(b"")
    report = xee_tf.verify(result)
    for message in ("s-00000.tfrecord.gz was not found", "s-00001", "s-00002.tfrecord.gz is truncated"):
        assert any(message in problem for problem in report.problems)
    assert f"{len(report.problems)} problems" in repr(report)
    with pytest.raises(xee_tf.RecordError, match=r"more problems\)"):
        report.raise_for_problems()


def test_extra_shards_and_edited_mixers(tmp_path):
    result = scene().tfexport(tmp_path / "s", **OPTIONS)
    extra = tmp_path / f"s-{len(result.files):05d}.tfrecord.gz"
    extra.write_bytes(gzip.compress(b""))
    assert [extra.name in problem for problem in xee_tf.verify(result).problems] == [True]
    extra.unlink()
    document = json.loads(Path(result.mixer.path).read_text())
    document["projection"]["crs"] = "EPSG:32634"
    Path(result.mixer.path).write_text(json.dumps(document))
    assert "crs is 'EPSG:32634', but 'EPSG:32633'" in xee_tf.verify(tmp_path / "s").problems[0]
    Path(result.mixer.path).write_text("{}")
    assert "projection" in xee_tf.verify(tmp_path / "s-mixer.json").problems[0]
    Path(result.mixer.path).unlink()
    Path(result.manifest.path).write_text("{}")
    assert "is not a manifest" in xee_tf.verify(tmp_path / "s").problems[0]


def test_a_shard_of_another_export_with_valid_records(tmp_path):
    options = {**OPTIONS, "compressed": False}
    result, other = (
        scene(seed).tfexport(tmp_path / name / "s", **options) for seed, name in ((0, "a"), (1, "b"))
    )
    path = Path(result.files[1].path)
    path.write_bytes(Path(other.files[1].path).read_bytes())
    problems = xee_tf.verify(result).problems
    assert any("CRC-32C" in problem for problem in problems)
    assert any("records 0 to" in problem and "another export" in problem for problem in problems)


def test_exports_without_a_manifest(tmp_path):
    export = write_export(tmp_path, {"B4": random_band((16, 24))}, patch=(8, 8), compression="gzip")
    report = xee_tf.verify(export.mixer)
    assert (report.ok, report.described, report.records) == (True, False, 6)
    assert "without a manifest" in repr(report)
    document = json.loads(export.mixer.read_text())
    export.mixer.write_text(json.dumps({**document, "totalPatches": 9}))
    assert "Expected 9 records" in xee_tf.verify(export.mixer).problems[0]
    export.mixer.write_text(json.dumps(document))
    data = bytearray(gzip.decompress(export.shards[0].read_bytes()))
    data[40] ^= 1
    export.shards[0].write_bytes(gzip.compress(data))
    assert "record 0 is corrupt" in xee_tf.verify(export.mixer).problems[0]


def test_tables_folders_and_prefixes(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": np.arange(500.0), "name": ["oak"] * 500})
    table = xee_tf.export_table(frame, tmp_path / "s")
    scene().tfexport(tmp_path / "s", **OPTIONS)
    scene().tfexport(tmp_path / "t", **OPTIONS)
    assert xee_tf.verify(table).records == 500
    for source in (table.path, table.manifest, tmp_path / "s-table.tfexport"):
        assert xee_tf.verify(source).names == (table.path,)
    assert xee_tf.verify(tmp_path / "s").records == 516
    report = xee_tf.verify(tmp_path)
    assert (report.ok, len(report.names), report.records) == (True, 3, 532)
    Path(table.path).write_bytes(Path(table.path).read_bytes()[:-1])
    assert not xee_tf.verify(tmp_path).ok
    for nothing in ("none", "none-mixer.json", "none.tfrecord.gz"):
        try:
            found = not xee_tf.verify(tmp_path / nothing).ok
        except xee_tf.XeeTFError as error:
            found = "none" in str(error)
        assert found


def test_object_stores(tmp_path):
    result = scene().tfexport("memory://verify/s", **OPTIONS)
    assert xee_tf.verify("memory://verify/s").ok
    fs = result.mixer.fs
    fs.pipe("/verify/s-00001.tfrecord.gz", fs.cat("/verify/s-00000.tfrecord.gz"))
    assert "s-00001" in xee_tf.verify("memory://verify").problems[0]


def test_the_command_prints_and_exits(tmp_path, capsys):
    result = scene().tfexport(tmp_path / "s", **OPTIONS)
    for path in (str(tmp_path / "s"), str(tmp_path), result.mixer.path):
        assert main(["inspect", path]) == 0
        assert "B4, dem, ndvi" in capsys.readouterr().out
        assert main(["verify", path]) == 0
        assert "Verification: ok" in capsys.readouterr().out
    Path(result.files[1].path).unlink()
    assert main(["verify", str(tmp_path / "s")]) == 1
    captured = capsys.readouterr()
    assert "s-00001.tfrecord.gz was not found" in captured.out
    assert "s-00001.tfrecord.gz was not found" in captured.err


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("step", [5, 1000])
def test_decompression_of_streams_in_pieces_of_any_size(size, step):
    parts = [b"a" * 1234, b"", bytes(range(256)) * 3]
    data = b"".join(gzip.compress(part) for part in parts)

    def pieces(data):
        return (data[begin : begin + size] for begin in range(0, len(data), size))

    for padding in (b"", bytes(512)):
        found = list(inflate_stream(pieces(data + padding), "s", step))
        assert b"".join(found) == b"".join(parts)
        assert {len(piece) for piece in found[:-1]} <= {step}
    assert list(inflate_stream(pieces(b""), "s", step)) == []
    with pytest.raises(RecordError, match=r"^s is truncated"):
        list(inflate_stream(pieces(data[:-3]), "s", step))
    with pytest.raises(RecordError, match=r"^s is corrupt"):
        list(inflate_stream(pieces(data[:40] + bytes(9) + data[49:]), "s", step))


def test_records_before_a_corrupt_record_are_counted(tmp_path):
    records = [bytes([number]) * 20 for number in range(9)]
    data = bytearray(b"".join(map(frame, records)))
    data[5 * 36 + 15] ^= 1
    (tmp_path / "t.tfrecord").write_bytes(data)
    found = xee_tf.verify(tmp_path / "t.tfrecord")
    assert found.records == 5
    assert "record 5 is corrupt" in found.problems[0]


def test_longer_records_than_a_plain_file_are_truncated(tmp_path):
    path = tmp_path / "scene.tfrecord"
    example = encode_records(RecordLayout((Feature.of("a", "f4", 1),)), [np.zeros(1, "f4")]).buffer.tobytes()
    path.write_bytes(example + frame_header((1 << 30) - 16) + bytes(100))
    with pytest.raises(RecordError, match="record 1 is truncated: expected 1073741824 bytes; got 112"):
        open_files([Location.of(path)], ReadOptions(bands=["b"]))
    assert "record 1 is truncated" in module._check_file(Location.of(path), None).problems[0]
