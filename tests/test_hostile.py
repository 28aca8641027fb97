"""Tests of damaged and hostile input: own errors, time linear in the size, memory bounded by it."""

import gzip
import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

import xee_tf
from tests.conftest import ROOT
from tests.foreign import delimited, frame
from tests.fuzzing import (
    JSON_METADATA,
    LEAST_BYTES,
    NEEDS,
    ONE,
    READERS,
    changed,
    entry,
    example,
    member_of,
    series,
    tensor,
)
from tests.hostile import VALUES, Counts, encoded, mutated
from tests.rasters import raster
from xee_tf.georef import read_crs
from xee_tf.georef.crs import crs_of_cf
from xee_tf.records import decode_features, decode_records, iter_frames  # noqa: F401
from xee_tf.records.parse import decode_sequence_example
from xee_tf.shards.inflate import inflate_stream
from xee_tf.shards.members import MEMBER_HEADER, MemberIndex, indexed_header
from xee_tf.shards.scan import scan_records
from xee_tf.wire import text_field

SEED = random.randrange(2**32) if os.environ.get("XEE_TF_RANDOM_EXAMPLES") else 0
LONG = pytest.param(True, marks=pytest.mark.long, id="long")

RECORDS = {
    "many features": lambda n: example(b"".join(entry(b"%d" % i) for i in range(n // 30))),
    "one name": lambda n: example(entry(b"a") * (n // 20)),
    "parts of a feature": lambda n: example(delimited(1, delimited(1, b"a") + delimited(2, ONE) * (n // 12))),
    "parts of a float list": lambda n: example(entry(b"a", ONE * (n // 8))),
    "parts of an int list": lambda n: example(entry(b"a", delimited(3, b"\x0a\1\1") * (n // 5))),
    "parts of a string list": lambda n: example(entry(b"a", delimited(1, b"\x0a\0") * (n // 4))),
    "two kinds": lambda n: example(entry(b"a", (ONE + delimited(3, b"\x0a\1\1")) * (n // 13))),
    "floats beside others": lambda n: example(entry(b"a", delimited(2, b"\x0d\0\0\0\0\x10\1" * (n // 7)))),
    "packs of one": lambda n: example(entry(b"a", delimited(2, b"\x0a\4\0\0\0\0" * (n // 6)))),
    "empty packs": lambda n: example(entry(b"a", delimited(3, b"\x0a\0" * (n // 2)))),
    "empty strings": lambda n: example(entry(b"a", delimited(1, b"\x0a\0" * (n // 2)))),
    "unknown fields": lambda n: b"\x10\1" * (n // 2),
    "groups": lambda n: (b"\x1b" * 99 + b"\x1c" * 99) * (n // 198),
    "too deep groups": lambda n: b"\x1b" * n,
    "long varint": lambda n: b"\x80" * n,
    "long name": lambda n: example(entry(b"x" * n)),
    "many series": lambda n: b"".join(series(delimited(1, ONE), b"%d" % i) for i in range(n // 30)),
    "many steps": lambda n: series(delimited(1, ONE) * (n // 10)),
    "empty steps": lambda n: series(b"\x0a\0" * (n // 2)),
}


@pytest.mark.parametrize("record", RECORDS)
def test_records_take_linear_time_and_bounded_memory(record):
    """Some took quadratic time: minutes for this size."""
    data = RECORDS[record](60_000)
    counts = Counts()
    for read in (decode_sequence_example, lambda data: decode_features(frame(data), [])):
        counts.check(lambda: read(data), len(data), least=32 << 20, seconds=4)  # noqa: B023
    assert not counts.wrong


def shuffled(seed, count=12):
    return b"".join(entry(b"%d" % j) for j in np.random.default_rng(seed).permutation(count))


FILES = {
    "pairs of sizes": lambda n: (frame(b"") * 2 + frame(b"\x10\1") * 2) * (n // 68),
    "own names": lambda n: b"".join(frame(example(entry(b"%d" % i))) for i in range(n // 44)),
    "own names and sizes": lambda n: b"".join(
        frame(example(entry(b"%d" % i + b"x" * (i % 7)))) for i in range(n // 48)
    ),
    "own orders": lambda n: b"".join(frame(example(shuffled(i))) for i in range(n // 250)),
    "one long record": lambda n: (
        frame(example(entry(b"a", delimited(2, delimited(1, bytes(n // 8 * 4))))))
        + frame(example(entry(b"a"))) * (n // 80)
    ),
    "one record with many features": lambda n: (
        frame(example(b"".join(entry(b"%d" % i) for i in range(n // 60))))
        + frame(example(entry(b"1"))) * (n // 80)
    ),
    "names twice": lambda n: frame(example(entry(b"a") * 2)) * (n // 52),
}


@pytest.mark.parametrize("file", FILES)
def test_files_take_linear_time_and_bounded_memory(file):
    data = FILES[file](100_000)
    counts = Counts()
    counts.check(lambda: decode_features(data, []), len(data), least=32 << 20, seconds=4)
    counts.check(lambda: list(scan_records(iter([data]), "s")), len(data), least=32 << 20)
    assert not counts.wrong


def members_in_one_group(n):
    member = member_of(frame(example(entry(b"a"))))
    body = member * (n // len(member))
    return indexed_header(MemberIndex(0, (n // len(member),), (len(body),))) + body[len(MEMBER_HEADER) :]


def test_many_gzip_members_take_linear_time(tmp_path):
    pytest.importorskip("pyarrow")
    counts = Counts()
    for content in (b"", b"a"):
        data = gzip.compress(content, mtime=0) * 10_000
        counts.check(lambda: list(inflate_stream(iter([data]), "s", 1 << 20)), len(data))  # noqa: B023
    (tmp_path / "t.tfrecord.gz").write_bytes(data := members_in_one_group(200_000))
    counts.check(lambda: xee_tf.open_table(tmp_path / "t.tfrecord.gz"), len(data))
    assert not counts.wrong


MIXER = {
    "projection": {"crs": "EPSG:32633", "affine": {"doubleMatrix": [30, 0, 7e5, 0, -30, 5e6]}},
    "patchDimensions": [8, 8],
    "patchesPerRow": 1,
    "totalPatches": 1,
}


def test_bombs_are_refused_by_a_limit_that_can_be_raised(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    size = 4 << 20
    record = frame(example(entry(b"a", delimited(2, delimited(1, bytes(size))))))
    (tmp_path / "b-00000.tfrecord.gz").write_bytes(gzip.compress(record))
    (tmp_path / "b-mixer.json").write_text(json.dumps(MIXER | {"patchDimensions": [1024, 1024]}))
    body = MEMBER_HEADER + gzip.compress(frame(example(entry(b"a"))) * 100_000, mtime=0)[10:]
    header = indexed_header(MemberIndex(0, (100_000,), (len(body),)))
    (tmp_path / "t.tfrecord.gz").write_bytes(header + body[len(MEMBER_HEADER) :])
    uses = [
        lambda: xee_tf.open_image(tmp_path / "b-mixer.json").load(),
        lambda: xee_tf.open_table(tmp_path / "b-00000.tfrecord.gz"),
        lambda: xee_tf.open_table(tmp_path / "t.tfrecord.gz"),
    ]
    monkeypatch.setenv("XEE_TF_MAX_INFLATED_BYTES", "1000000")
    for use in uses:
        with pytest.raises(xee_tf.RecordError, match=r"takes more than 1,\d+,\d+ bytes.*XEE_TF_MAX_INFLATED"):
            use()
    assert "takes more than" in str(xee_tf.verify(tmp_path / "b-mixer.json").problems)
    monkeypatch.setenv("XEE_TF_MAX_INFLATED_BYTES", "10000000")
    for use in uses:
        use()
    monkeypatch.setenv("XEE_TF_MAX_INFLATED_BYTES", "all")
    with pytest.raises(xee_tf.OptionError, match="must be a number of bytes; got 'all'"):
        uses[0]()


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Exports of each kind, by their sidecars, with functions that read them."""
    folder = tmp_path_factory.mktemp("exports")
    generator = np.random.default_rng(0)
    bands = {
        "B4": generator.random((32, 32), "f4"),
        "n": generator.integers(0, 9, (3, 32, 32)).astype("i2"),
        "o": generator.random((2, 32, 32), "f4"),
    }
    image = raster({"B4": bands["B4"]})
    image = image.assign(n=(("time", "y", "x"), bands["n"]), o=(("orbit", "y", "x"), bands["o"]))
    image = image.assign_coords(
        time=np.array(["2020-01-01", "2020-02-01", "2020-03-01"], "M8[ns]"), orbit=["asc", "desc"]
    ).chunk(y=16, x=16)
    depths = {"n": 3, "o": 2}
    image.tfexport(
        folder / "img", patch_dimensions=8, kernel_size=3, tensor_depths=depths, feature_types="band"
    )
    image.tfexport(
        folder / "seq", patch_dimensions=8, tensor_depths=depths, sequence_data=True, drop_masked_steps=True
    )
    image[["B4"]].tfexport(folder / "drop", patch_dimensions=8, masked_threshold=0.2)
    found = {
        folder / "img-mixer.json": image_uses(folder / "img-mixer.json"),
        folder / "img-image.tfexport": image_uses(folder / "img-mixer.json"),
        folder / "seq-image.tfexport": image_uses(folder / "seq-mixer.json"),
        folder / "drop-image.tfexport": image_uses(folder / "drop-image.tfexport"),
    }
    try:
        xee_tf.export_table(
            pd.DataFrame({"a": [1.0, 2], "s": ["x", "y"], "p": [np.zeros(4)] * 2}), folder / "tab"
        )
    except xee_tf.MissingExtraError:
        return found
    table = folder / "tab.tfrecord.gz"
    return found | {
        folder / "tab-table.tfexport": [
            lambda: xee_tf.open_table(table),
            lambda: repr(xee_tf.inspect(table)),
            lambda: xee_tf.verify(table),
        ]
    }


def image_uses(side):
    return [
        lambda: xee_tf.open_image(side).load(scheduler="synchronous"),
        lambda: xee_tf.open_image(side, chunks=None).isel(x=slice(3), y=slice(3)).load(),
        lambda: repr(xee_tf.open_image(side, margins="keep")),
        lambda: repr(xee_tf.inspect(side)),
        lambda: xee_tf.verify(side),
    ]


@pytest.mark.parametrize("long", [False, LONG])
def test_changed_sidecars_raise_own_errors(exports, long, capsys):
    generator = random.Random(SEED)
    counts = Counts()
    for number in range(3000 if long else 30):
        side = list(exports)[number % len(exports)]
        written = side.read_bytes()
        data = encoded(mutated(json.loads(written), generator), checksum=side.suffix == ".tfexport")
        side.write_bytes(data)
        for use in exports[side]:
            counts.check(use, len(data))
        side.write_bytes(written)
    report("sidecars", counts, capsys if long else None)


@pytest.mark.parametrize("long", [False, LONG])
@pytest.mark.parametrize("reader", READERS)
def test_changed_inputs_raise_own_errors(reader, long, capsys):
    if reader in NEEDS:
        pytest.importorskip(NEEDS[reader])
    read, valid = READERS[reader]
    generator, counts = random.Random(f"{SEED} {reader}"), Counts()
    number = 50 if not long else 500 if reader == "CRS" else 10_000  # PROJ searches its database
    number = 5 if reader == "CRS" and not long else number
    for data in [*valid, *(changed(generator.choice(valid), generator, valid) for _ in range(number))]:
        least = LEAST_BYTES.get(reader, LEAST_BYTES[""])
        counts.check(lambda: read(data), len(data), least=least)  # noqa: B023
    report(reader, counts, capsys if long else None)


@pytest.mark.long
def test_inputs_that_reach_new_code_raise_own_errors(tmp_path, capsys):
    if find_spec("atheris") is None:
        pytest.skip("atheris is not installed (pip install atheris)")
    (tmp_path / "inputs").mkdir()
    command = [sys.executable, "-m", "tests.coverage_guided", "120", str(tmp_path / "inputs")]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=ROOT, timeout=600)
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}")
    assert done.returncode == 0, done.stderr[-2000:]


CRSS = {
    "nested WKT": lambda n: 'GEOGCS["x",' + "A[" * n + '"a"' + "]" * n + "]",
    "open WKT": lambda n: 'GEOGCS["x",' + "A[" * n,
    "compound WKT": lambda n: 'COMPD_CS["x",' * n,
    "bound WKT": lambda n: "BOUNDCRS[SOURCECRS[" * n + 'GEOGCRS["x"]' + "]]" * n,
    "quotes": lambda n: 'GEOGCS["' + '"' * n,
    "remark": lambda n: 'GEOGCRS["x",REMARK["' + "proj=" * n + '"]]',
    "nested PROJJSON": lambda n: '{"type":"BoundCRS","source_crs":' * n + "{}" + "}" * n,
    "lists": lambda n: '{"a":' + "[" * n,
    "pipeline": lambda n: "+proj=pipeline " + "+step +proj=longlat " * n,
    "codes": lambda n: "EPSG:4326+" * n + "EPSG:5773",
    "URN": lambda n: "urn:ogc:def:crs," + "crs:EPSG::4326," * n,
    "name": lambda n: "a" * n,
}


@pytest.mark.parametrize("crs", CRSS)
def test_nested_crss_are_refused(crs):
    counts = Counts()
    for levels in (500, 20_000):
        text = CRSS[crs](levels)
        counts.check(lambda: read_crs(text), len(text))  # noqa: B023
    assert counts["own errors"] == counts["calls"]
    assert not counts.wrong


@pytest.mark.parametrize("crs", ["remark", "name"])
def test_long_crss_are_refused(crs):
    """PROJ took 650 MB for 5 MB."""
    text = CRSS[crs](2_000_000)
    counts = Counts()
    counts.check(lambda: read_crs(text), len(text), multiple=4)
    counts.check(lambda: crs_of_cf({"crs_wkt": text}), len(text), also=[ValueError], multiple=4)
    assert counts["own errors"] == counts["calls"]
    assert not counts.wrong


@pytest.mark.parametrize(
    "change",
    [
        {"patchesPerRow": 10**6, "totalPatches": 10**12},
        {"patchesPerRow": 1, "totalPatches": 10**15},
        {"patchesPerRow": 10**12, "totalPatches": 10**12},
        {"patchDimensions": [10**9, 1]},
        {"patchDimensions": [10**6, 10**6], "patchesPerRow": 10**6, "totalPatches": 10**12},
    ],
)
def test_huge_grids_are_refused(tmp_path, change):
    raster({"B4": np.ones((32, 32), "f4")}).tfexport(tmp_path / "s", patch_dimensions=8)
    (tmp_path / "s-image.tfexport").unlink()
    mixer = tmp_path / "s-mixer.json"
    mixer.write_text(json.dumps(json.loads(mixer.read_text()) | change))
    counts = Counts()
    for kernel in (1, 10**9 + 1):
        counts.check(lambda: xee_tf.open_image(mixer, kernel_size=kernel), 2000)  # noqa: B023
        counts.check(lambda: xee_tf.upload_image(None, mixer, tmp_path / "u.tif", kernel_size=kernel), 2000)  # noqa: B023
    assert counts["own errors"] == counts["calls"]
    for use in (xee_tf.inspect, xee_tf.verify):
        counts.check(lambda: str(use(mixer)), 2000)  # noqa: B023
    assert not counts.wrong


BODIES = {
    "nested": lambda n: b"[" * 500 + b"1" + b"]" * 500,
    "open": lambda n: b"[" * n,
    "deep rows": lambda n: b"[" + b",".join([b"[" * 70 + b"1" + b"]" * 70] * (n // 142)) + b"]",
    "objects": lambda n: b'{"a":' * (n // 6) + b"1" + b"}" * (n // 6),
    "a long string at the end": lambda n: b"[" + b"1," * (n // 4) + b'"' + b"9" * (n // 2) + b'"]',
    "a long string among strings": lambda n: b"[" + b'"1",' * (n // 8) + b'"' + b"9" * (n // 2) + b'"]',
    "a long string at the beginning": lambda n: b'["' + b"9" * (n // 2) + b'"' + b",1" * (n // 4) + b"]",
    "lists": lambda n: b"[" + b",".join([b"[]"] * (n // 3)) + b"]",
    "ragged": lambda n: b"[" + b",".join([b"[1]", b"[1,2]"] * (n // 10)) + b"]",
    "null": lambda n: b"[null" + b",null" * (n // 5) + b"]",
    "large integers": lambda n: b"[" + b",".join([b"9" * 25] * (n // 26)) + b"]",
    "one large integer": lambda n: b"[" + b"9" * n + b"]",
    "NaN": lambda n: b"[NaN" + b",NaN" * (n // 4) + b"]",
    "NaN and text": lambda n: b'[NaN,"' + b"x" * n + b'"]',
    "names": lambda n: b"[{" + b",".join(b'"%d":1' % i for i in range(n // 10)) + b"}]",
    "half a pair": lambda n: b'["\\ud800"]',
    "half a pair in a name": lambda n: b'[{"\\ud800":1}]',
    "base64": lambda n: b'[{"b64":"' + b"!" * n + b'"}]',
    "a list as base64": lambda n: b'[{"b64":[' + b"1," * (n // 2) + b"1]}]",
    "no JSON": lambda n: b"\xff" * n,
    "a number": lambda n: b"1",
}


def test_json_of_requests_and_responses_is_bounded():
    """A body of 1 MB took 6 GB."""
    pytest.importorskip("orjson")
    from xee_tf.remote.payloads.json_arrays import decode_json_outputs
    from xee_tf.serving.failures import RequestError
    from xee_tf.serving.predictions import JsonRequest

    counts = Counts()
    for make in BODIES.values():
        for key in ("instances", "outputs"):
            body = b'{"%s":%s}' % (key.encode(), make(20_000))
            for dtype in ("float32", object):
                counts.check(
                    lambda: JsonRequest.parse(body).inputs({"x": dtype}),  # noqa: B023
                    len(body),
                    also=[RequestError],
                    least=32 << 20,
                )
            body = body.replace(b"instances", b"predictions")
            counts.check(lambda: decode_json_outputs(body), len(body), least=32 << 20)  # noqa: B023
    assert not counts.wrong


TENSORS = {
    "one value": lambda n: tensor(1, [1 << 40], delimited(5, bytes(4))),
    "two values": lambda n: tensor(1, [1 << 28], delimited(5, bytes(8))),
    "strings": lambda n: tensor(7, [1 << 28], delimited(8, b"a") * 2),
    "axes": lambda n: tensor(1, [1] * (n // 4)),
    "large axes": lambda n: tensor(1, [1 << 62] * (n // 12)),
    "empty strings": lambda n: tensor(7, [n // 2], delimited(8, b"") * (n // 2)),
    "single integers": lambda n: tensor(6, [n // 2], b"\x38\1" * (n // 2)),
    "parts": lambda n: tensor(1, [1], delimited(4, bytes(4)) * (n // 6)),
    "unknown fields": lambda n: tensor(1, [1], b"\x7a\0" * (n // 2)),
    "unknown type": lambda n: tensor(1 << 62, [1]),
}


def test_messages_of_requests_and_responses_are_bounded():
    pytest.importorskip("ml_dtypes")
    from xee_tf.remote.payloads.predict_messages import decode_predict_request, decode_predict_response
    from xee_tf.remote.payloads.strings import parse_strings

    counts = Counts()
    for make in TENSORS.values():
        message = make(20_000)
        named = text_field(1, "x") + delimited(2, message)
        for count in (1, max(1, 5_000 // len(named))):
            request, response = delimited(2, named) * count, delimited(1, named) * count
            counts.check(lambda: decode_predict_request(request), len(request), least=150 << 20)  # noqa: B023
            counts.check(lambda: decode_predict_response(response), len(response), least=150 << 20)  # noqa: B023
        strings = np.array([message] * 3, object)
        counts.check(lambda: parse_strings({"x": strings}), 3 * len(message), least=200 << 20)  # noqa: B023
    assert not counts.wrong


def test_metadata_of_servers_is_bounded():
    pytest.importorskip("ml_dtypes")
    from xee_tf.remote.serving_metadata import signature_of_json, signature_of_message

    generator, counts = random.Random(SEED), Counts()
    for _ in range(100):
        data = encoded(mutated(JSON_METADATA, generator), checksum=False)
        counts.check(lambda: signature_of_json(data, "", "the model"), len(data))  # noqa: B023
        noise = generator.randbytes(40)
        counts.check(lambda: signature_of_message(noise, "", "the model"), 40)  # noqa: B023
    assert not counts.wrong


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_excerpts_are_short(value):
    from xee_tf.errors import excerpt

    text = excerpt(value)
    assert len(text) <= 80
    text.encode()
    if len(repr_of(value)) <= 80:
        assert text == repr_of(value)


def repr_of(value):
    try:
        return repr(value)
    except ValueError:  # Python limits the digits of integers
        return "9" * 100


def report(what, counts, capsys):
    """Print counts if the test is long, and fail if something happened that must not."""
    if capsys is not None:
        with capsys.disabled():
            print(f"\n{what}: {counts['calls']:,} calls, {counts['own errors']:,} own errors, seed {SEED}")
    assert not counts.wrong
