"""Readers of bytes that others wrote, with valid inputs, and random changes of these."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.foreign import delimited, frame
from tests.hostile import VALUES
from xee_tf import XeeTFError
from xee_tf.geometry import Size
from xee_tf.georef import read_crs
from xee_tf.records import (
    Feature,
    RecordLayout,
    decode_features,
    decode_records,
    decode_sequence_example,
    encode_records,
    iter_frames,
    read_layout,
    read_sequence_layout,
)
from xee_tf.shards.inflate import inflate_stream
from xee_tf.shards.members import (
    MEMBER_HEADER,
    MemberIndex,
    compress_member,
    indexed_header,
    inflate_member,
    read_index,
)
from xee_tf.shards.scan import scan_records
from xee_tf.sidecars import (
    BandSpec,
    ImageManifest,
    ManifestShard,
    Mixer,
    SampleCounts,
    ShardInfo,
    TableColumn,
    TableManifest,
    TablePatches,
    read_manifest,
)
from xee_tf.sidecars.manifest_files import parse_dimensions
from xee_tf.sidecars.packing import render
from xee_tf.storage import DamagedNoteError, Location, read_note
from xee_tf.storage.notes import is_torn_note, note_bytes
from xee_tf.tensors import decode_tensor
from xee_tf.wire import integer_field, text_field

# -- Readers -----------------------------------------------------------------------------------------


def each(*calls: Callable[[], object]) -> None:
    """Call all functions, and raise the first error of xee_tf."""
    errors = []
    for call in calls:
        try:
            call()
        except XeeTFError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def as_text(data):
    return data.decode("utf-8", "replace")


def pieces(data):
    return iter([data[start : start + 50] for start in range(0, len(data), 50)])


def read_file(data):
    each(
        lambda: list(scan_records(pieces(data), "s")),
        lambda: decode_features(data, []),
        lambda: list(iter_frames(data)),
    )


def read_example(data):
    each(
        lambda: read_layout(data),
        lambda: decode_features(frame(data) * 2 + frame(EXAMPLES[0]), []),
        lambda: decode_records(frame(data), EXAMPLE),
        lambda: decode_records(frame(EXAMPLES[0]) + frame(data) * 9, EXAMPLE, orders=[EXAMPLE]),
    )


def read_sequence(data):
    each(
        lambda: decode_sequence_example(data),
        lambda: read_sequence_layout([data, data]),
        lambda: decode_records(frame(data), SEQUENCE),
        lambda: decode_records(frame(data) * 9, SEQUENCE, orders=[SEQUENCE], steps={"t": 4}),
    )


def read_gzip(data):
    each(
        lambda: list(inflate_stream(pieces(data), "s", 1000)),
        lambda: read_index(data),
        lambda: inflate_member(data, limit=1 << 24),
    )


def read_deflated(data):
    """Read a gzip member with these compressed bytes and, if they are valid, the right checksum."""
    try:
        content = zlib.decompressobj(-15).decompress(data, 1 << 20)
    except zlib.error:
        content = b""
    footer = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    inflate_member(MEMBER_HEADER + data + footer, limit=1 << 24)


def read_member_index(data):
    """Read a gzip header with these bytes as the index."""
    head = bytearray(HEADER)
    head[10:12] = (len(data) + 4 & 0xFFFF).to_bytes(2, "little")
    head[14:16] = (len(data) & 0xFFFF).to_bytes(2, "little")
    read_index(bytes(head[:16]) + data)


def read_note_file(data):
    note = Location.of("memory://fuzzing/note.json")
    note.write_bytes(data)
    is_torn_note(note)
    try:
        read_note(note)
    except DamagedNoteError as error:
        raise XeeTFError(str(error)) from None


def read_manifest_file(data):
    """Read a manifest, with the right checksum if possible."""
    try:
        document = json.loads(data)
        data = render({key: value for key, value in document.items() if key != "crc32c"}).encode()
    except (ValueError, RecursionError, AttributeError):
        pass
    file = Location.of("memory://fuzzing/s-image.tfexport")
    file.write_bytes(data)
    read_manifest(file)


def read_mixer(data):
    mixer = Mixer.parse(as_text(data))
    each(mixer.text, mixer.grid, lambda: Mixer.parse(mixer.text()))


def read_request(data):
    from xee_tf.remote.payloads import decode_predict_request
    from xee_tf.serving.metadata import decode_metadata_request

    each(lambda: decode_metadata_request(data), lambda: decode_predict_request(data))


def read_response(data):
    from xee_tf.remote.payloads.predict_messages import decode_predict_response

    decode_predict_response(data)


def read_strings(data):
    from xee_tf.remote.payloads import parse_strings

    strings = np.empty(3, object)
    strings[:] = data, TENSORS[0], data
    parse_strings({"x": strings})


def read_json_request(data):
    from xee_tf.serving.failures import RequestError
    from xee_tf.serving.predictions import JsonRequest

    def read(dtypes):
        try:
            JsonRequest.parse(data).inputs(dtypes)
        except RequestError as error:
            raise XeeTFError(str(error)) from None

    x, y = {"x": "float32"}, {"y": object}
    each(lambda: read(x), lambda: read(y), lambda: read(x | y), lambda: read({"x": "int32", "y": bool}))


def read_json_response(data):
    from xee_tf.remote.payloads.json_arrays import decode_json_outputs

    each(lambda: decode_json_outputs(data), lambda: decode_json_outputs(data, "y", {"y": "int64"}))


def read_metadata(data):
    from xee_tf.remote.serving_metadata import signature_of_json, signature_of_message

    read = signature_of_json if data[:1] == b"{" else signature_of_message
    read(data, "", "the model")


# -- Valid inputs ------------------------------------------------------------------------------------

EXAMPLE = RecordLayout(
    (Feature.of("B4", "f4", 3), Feature.of("class", "i4", 2, "band"), Feature.of("q", "u1", 4, "band"))
)
SEQUENCE = RecordLayout(
    (Feature.of("a", "f4", 1),), (Feature.of("t", "f4", 1), Feature.of("u", "i8", 1, "band"))
)


ZERO = b"\x0d\0\0\0\0"  # a float that is not packed
ONE = delimited(2, delimited(1, b"\0\0\x80?"))  # a Feature with one float


def member_of(data):
    """Return a gzip member."""
    return b"".join(compress_member(data))


def entry(name, feature=ONE):
    return delimited(1, delimited(1, name) + delimited(2, feature))


def example(entries):
    return delimited(1, entries)


def series(steps, name=b"a"):
    return delimited(2, delimited(1, delimited(1, name) + delimited(2, steps)))


def encoded(layout, *arrays):
    return bytes(next(iter_frames(encode_records(layout, [array[None] for array in arrays]).buffer.data)))


EXAMPLES = [
    encoded(EXAMPLE, np.float32([1, np.nan, 3]), np.int32([300, -1]), np.uint8([0, 1, 2, 255])),
    example(entry(b"q", delimited(1, delimited(1, b"ab") * 3)) + entry(b"B4", delimited(2, ZERO * 3))),
    example(entry(b"class", delimited(3, b"\x08\1\x08\xac\2") * 2)) + b"\x1b\x10\1\x1c",
]
SEQUENCES = [
    encoded(SEQUENCE, np.float32([1]), np.float32([1, 2, 3]), np.int64([1, -300, 3])),
    series(delimited(1, delimited(2, ZERO)) * 3, b"t")
    + series(delimited(1, delimited(3, b"\x0a\1\1")), b"u"),
]
FILES = [frame(EXAMPLES[0]) * 3 + frame(EXAMPLES[1]), b"".join(map(frame, SEQUENCES))]
MEMBERS = [member_of(data) for data in FILES]
HEADER = indexed_header(MemberIndex(0, (3, 1), (len(MEMBERS[0]), len(MEMBERS[1]))))
ZIPPED = [
    HEADER + MEMBERS[0][len(MEMBER_HEADER) :] + MEMBERS[1],
    gzip.compress(b"".join(FILES), mtime=0) + gzip.compress(b"") + bytes(9),
]


def tensor(number, sizes, *values):
    shape = delimited(2, b"".join(delimited(2, integer_field(1, size)) for size in sizes))
    return integer_field(1, number) + shape + b"".join(values)


TENSORS = [
    tensor(1, [1, 2], delimited(4, np.float32([1, 2]).tobytes())),
    tensor(7, [1, 2], delimited(8, b"sea"), delimited(8, b"land")),
    tensor(3, [4], delimited(7, b"\1\2")),
    tensor(1, [9], b"\x2d\0\0\x80\x3f" * 2),
    tensor(19, [2], b"\x68\1\x68\2"),
]


def tensors(number, *more):
    named = {b"x": TENSORS[0], b"y": TENSORS[1]}.items()
    entries = (delimited(1, name) + delimited(2, tensor) for name, tensor in named)
    return b"".join([*more, *(delimited(number, entry) for entry in entries)])


MODEL_SPEC = delimited(1, text_field(1, "m") + delimited(2, integer_field(1, 3)) + text_field(3, "s"))
SIDES = delimited(2, integer_field(1, -1)) + delimited(2, integer_field(1, 3))
INFO = delimited(2, integer_field(2, 1) + delimited(3, SIDES))
SIGNATURE = delimited(1, text_field(1, "x") + INFO) + delimited(2, text_field(1, "y") + INFO)
SIGNATURES = delimited(2, delimited(1, text_field(1, "serving_default") + delimited(2, SIGNATURE)))
JSON_METADATA = {"metadata": {"signature_def": {"signature_def": {"serving_default": {
    "inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "3"}]}}},
    "outputs": {"y": {"dtype": "DT_FLOAT", "tensor_shape": {"unknown_rank": True}}},
}}}}}  # fmt: skip
METADATA = [
    delimited(2, text_field(1, "signature_def") + delimited(2, text_field(1, "type") + SIGNATURES)),
    json.dumps(JSON_METADATA).encode(),
]
JSON = [
    b'{"instances": [[1, 2.5], [3, -4e9]], "signature_name": "serving_default"}',
    b'{"instances": [{"x": 1, "y": {"b64": "AAAA"}}, {"x": NaN, "y": "text"}]}',
    b'{"inputs": {"x": [[1, 2], [3, 4]], "y": [true, false]}}',
    b'{"predictions": [[0.5, "1"], ["Infinity", null]]}',
    b'{"predictions": [{"y": [0.5], "x": "oak"}, {"y": ["1"], "x": {"b64": "_-8="}}]}',
    b'{"outputs": {"x": [1], "y": [9223372036854775807]}, "error": "\\ud83d\\ude00"}',
]
MIXER = {
    "projection": {"crs": "EPSG:32633", "affine": {"doubleMatrix": [30.0, 0.0, 7e5, 0.0, -30.0, 5e6]}},
    "patchDimensions": [8, 8],
    "patchesPerRow": 4,
    "totalPatches": 16,
}
GEOGRAPHIC = {"crs": "EPSG:4326", "affineTransform": {"scaleX": 1, "scaleY": -1e-5}}
WKT = read_crs("EPSG:32633").to_wkt()
NAMED_WKT = {"wkt": WKT, "transform": [1, 0, 0, 0, -1, 0], "more": [1]}
MIXERS = [
    json.dumps(MIXER).encode(),
    json.dumps({**MIXER, "projection": GEOGRAPHIC}).encode(),
    json.dumps({**MIXER, "projection": NAMED_WKT, "x": {"a": None}}).encode(),
]
SHARD = ManifestShard(
    ShardInfo("s-00000.tfrecord.gz", 16, 900, 7),
    np.uint32([8, 8]), np.uint32([1, 2]), np.arange(16), np.int64([400, 500]),
)  # fmt: skip
COORDS = {
    "time": np.array(["2020-01-01", "2020-02-01"], "M8[ns]"),
    "orbit": np.array(["asc", "desc"]),
    "z": np.float32([0.5, np.nan]),
}
STORED = {"dtype": "int16", "kind": "int64", "default": -1.0, "nodata": (0.0, np.nan), "units": "m"}
BANDS = tuple(BandSpec(f"n{dim}", (dim,), (2,), **STORED) for dim in COORDS)
IMAGE = ImageManifest(
    "Example", BANDS, COORDS, np.nan, True, Size(x=3, y=3), Mixer.parse(MIXERS[0].decode()).grid(), (SHARD,),
    {"patch_dimensions": [8, 8]}, "key", identity={"a": 1},
)  # fmt: skip
COLUMNS = (TableColumn("a"), TableColumn("p", "int64", (2, 2)))
TABLE = TableManifest(
    COLUMNS,
    (SHARD,),
    counts=SampleCounts(5, 1, (("7", 3, 2),), 1),
    rounded=("a",),
    identity={"a": 1},
    patches=TablePatches(Size(x=2, y=2), -9.0),
)
OLD = {
    "record": "Example",
    "fill": 0,
    "bands": [{"name": "n", "feature": "n", "first": 0, "dims": ["t"], "shape": [2]}],
    "coords": {"t": {"dtype": "<U4", "values": ["asc", "desc"]}},
}
CRSS = [
    *("EPSG:32633", "SR-ORG:6974", "urn:ogc:def:crs:EPSG::4326", WKT),
    *(read_crs("EPSG:4326").to_json(), read_crs("EPSG:31467").to_wkt("WKT1_ESRI")),
    "+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80 +towgs84=0,0,0 +units=m",
]

READERS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "file": (read_file, FILES),
    "example": (read_example, EXAMPLES),
    "sequence": (read_sequence, SEQUENCES),
    "gzip": (read_gzip, ZIPPED),
    "deflated": (read_deflated, [member[len(MEMBER_HEADER) : -8] for member in MEMBERS]),
    "member index": (read_member_index, [HEADER[16:], b"\1\7\1\5\x90\3"]),
    "tensor": (decode_tensor, TENSORS),
    "strings": (read_strings, [*TENSORS, b"CAESBBICCAIiCAAAgD8AAABA"]),
    "request": (read_request, [tensors(2, MODEL_SPEC), MODEL_SPEC + text_field(2, "signature_def")]),
    "response": (read_response, [tensors(1, delimited(2, MODEL_SPEC[2:]))]),
    "metadata": (read_metadata, METADATA),
    "JSON request": (read_json_request, JSON),
    "JSON response": (read_json_response, JSON),
    "mixer": (read_mixer, MIXERS),
    "manifest": (read_manifest_file, [IMAGE.text().encode(), TABLE.text().encode()]),
    "dimensions": (
        lambda data: parse_dimensions(data.decode("utf-8", "replace")),
        [json.dumps(OLD).encode()],
    ),
    "note": (read_note_file, [note_bytes({"a": [1, "b"], "c": {"d": None}}), note_bytes({})]),
    "CRS": (lambda data: read_crs(as_text(data)), [text.encode() for text in CRSS]),
}
"""Functions that read bytes, with valid inputs."""

NEEDS = {
    **dict.fromkeys(("tensor", "strings", "request", "response", "metadata"), "ml_dtypes"),
    **dict.fromkeys(("JSON request", "JSON response"), "orjson"),
}
"""The packages that readers need, if they are optional."""

LEAST_BYTES = {"": 32 << 20, **dict.fromkeys(("tensor", "strings", "request", "response"), 160 << 20)}
"""The memory that readers may take for any input; tensors may repeat a value."""

# -- Changes -----------------------------------------------------------------------------------------

TOKENS = [
    *(b"\0", b"\xff", b"\x80" * 9, b"\xff" * 9 + b"\1", b"\xff\xff\xff\xff\x07", b"\x1b", b"\x0a\0", b"\x7f"),
    *(
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"[",
        b"]",
        b"{",
        b"}",
        b"[[",
        b",",
        b'"',
        b"\\ud800",
        b"\\",
    ),
    *(json.dumps(value).encode() for value in VALUES if len(str(value)[:100]) < 100),
    *(b"NaN", b"-", b"1e999", b"9" * 30, b"9" * 5000, b"0x1", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n"),
    *(b"PARAMETERFILE[", b"+nadgrids=/x", b"http://x", b"EPSG:", b"+init=", b"PROJ4_GRIDS"),
]
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?|true|null|\"[^\"]*\"")


def changed(data: bytes, generator: Any, others: list[bytes]) -> bytes:
    """Return an input with one to six changes: of bytes, tokens or values, splices, and truncations."""
    for _ in range(generator.choice((1, 1, 1, 2, 3, 6))):
        start = generator.randrange(len(data) + 1)
        stop = min(len(data), start + generator.choice((0, 1, 1, 2, 4, 8, 100)))
        other = generator.choice(others)
        how = generator.randrange(9)
        if how == 0 and data:  # a bit
            place = generator.randrange(len(data))
            part = bytes([data[place] ^ 1 << generator.randrange(8)])
            start, stop = place, place + 1
        elif how == 1:
            part = generator.randbytes(stop - start)
        elif how == 2:
            part = generator.choice(TOKENS)
        elif how == 3:  # a repeated range
            part = data[start:stop] * generator.choice((2, 3, 50))
        elif how == 4:  # a splice
            part, stop = other[generator.randrange(len(other) + 1) :], len(data)
        elif how == 5:
            begin = generator.randrange(len(other) + 1)
            part = other[begin : begin + generator.choice((1, 4, 20))]
        elif how == 6:
            part = b"" if generator.randrange(3) else data[stop:]
        elif how == 7 and (found := list(_NUMBER.finditer(data[:20_000]))):
            start, stop = generator.choice(found).span()
            part = generator.choice(TOKENS)
        else:  # truncated
            part, stop = b"", len(data) if generator.randrange(4) == 0 else stop
        data = data[:start] + part + data[stop:]
    return data
