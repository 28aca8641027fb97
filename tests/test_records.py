"""Compare encoding and decoding of records with protobuf and TensorFlow, and test damaged records."""

from __future__ import annotations

import gzip
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.lib.stride_tricks import sliding_window_view

from tests.conftest import needs_posix
from tests.foreign import delimited, frame, parse_message
from tests.fuzzing import member_of
from tests.optional import optional
from tests.strategies import examples, layouts, layouts_and_values, names
from xee_tf.errors import OptionError, RecordError
from xee_tf.names import check_key
from xee_tf.records import (
    FRAMING,
    Feature,
    Ragged,
    RecordLayout,
    decode_records,
    decode_sequence_example,
    encode_records,
    iter_frames,
    kind_of,
    read_layout,
)
from xee_tf.records.framing import frame_offsets
from xee_tf.records.parse import decode_example
from xee_tf.shards.members import (
    MEMBER_HEADER,
    MemberIndex,
    index_header_size,
    indexed_header,
    inflate_member,
    read_index,
)
from xee_tf.varints import decode_varints, encode_varints, varint_bound
from xee_tf.wire import encode_varint, varint_size

tf = optional("tensorflow")

Example = tf.train.Example


def protobuf_example(layout, values, record):
    """Build a record from protobuf objects."""
    message = Example()
    for feature, array in zip(layout.features, values, strict=True):
        target = message.features.feature[feature.name]
        if feature.kind == "bytes":
            target.bytes_list.value.append(array[record].tobytes())
        elif feature.kind == "float":
            target.float_list.value.extend(array[record].ravel().tolist())
        else:
            target.int64_list.value.extend(array[record].ravel().tolist())
    return message


def message_bytes(message):
    """The values of a parsed Example, comparable even if they contain NaN."""
    found = {}
    for name, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind == "float_list":
            found[name] = np.array(feature.float_list.value, "<f4").tobytes()
        elif kind == "int64_list":
            found[name] = np.array(feature.int64_list.value, "<i8").tobytes()
        elif kind == "bytes_list":
            found[name] = list(feature.bytes_list.value)
    return found


def decoded_bytes(decoded):
    """The values of a decoded Example in the form of `message_bytes`."""
    return {
        name: values if isinstance(values, list) else np.ascontiguousarray(values).tobytes()
        for name, values in decoded.items()
    }


# -- Numbers -----------------------------------------------------------------------------------------

int64s = (
    st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300) | st.sampled_from([2**k for k in range(63)])
)


@given(st.lists(int64s, max_size=30))
def test_varints_round_trip_and_match_single_varints(values):
    data, sizes = encode_varints(np.array(values, np.int64))
    singles = [encode_varint(value) for value in values]
    assert data.tobytes() == b"".join(singles)
    assert sizes.tolist() == [len(single) for single in singles] == [varint_size(v) for v in values]
    assert decode_varints(data).tolist() == values


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_varint_bound_is_the_maximum_length_for_the_dtype(dtype):
    info = np.iinfo(dtype)
    sizes = encode_varints(np.array([info.min, info.max, 0], dtype))[1]
    assert varint_bound(dtype) == sizes.max()


def test_uint64_values_outside_int64_raise():
    layout = RecordLayout((Feature.of("big", "uint64", 1, "band"),))
    assert len(encode_records(layout, [np.array([[2**63 - 1]], "u8")])) == 1
    with pytest.raises(RecordError, match="9223372036854775808 does not fit"):
        encode_records(layout, [np.array([[2**63]], "u8")])


@pytest.mark.parametrize("data", [b"\x80", b"\x01\xff", b"\xff" * 10 + b"\x01"])
def test_malformed_varints_raise(data):
    with pytest.raises(RecordError, match="varint"):
        decode_varints(data)


# -- Kinds and names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("bool", "bytes"),
        ("u1", "bytes"),
        ("i1", "int64"),
        ("u2", "int64"),
        ("i8", "int64"),
        ("f2", "float"),
        ("f4", "float"),
        ("f8", "float"),
    ],
)
def test_kinds(dtype, kind):
    assert kind_of(dtype, "band") == kind
    assert kind_of(dtype, "float") == kind_of(dtype) == "float"


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "S3", "O"])
def test_unsupported_dtypes_raise(dtype):
    with pytest.raises(OptionError, match="cannot be stored"):
        kind_of(dtype)


def test_unknown_feature_types_raise():
    with pytest.raises(OptionError, match="'float' or 'band'; got 'int'"):
        kind_of("f4", "int")


@pytest.mark.parametrize(("name", "message"), [(3, "string"), ("", "empty"), ("\ud800", "UTF-8")])
def test_invalid_feature_names_raise(name, message):
    with pytest.raises(OptionError, match=message):
        check_key(name)


def test_layouts_with_duplicates_or_without_bands_raise():
    band = Feature.of("a", "f4", 1)
    with pytest.raises(OptionError, match="'a' appears twice"):
        RecordLayout((band, band))
    with pytest.raises(OptionError, match="at least one"):
        RecordLayout(())


# -- Writing -----------------------------------------------------------------------------------------


@given(layouts_and_values())
def test_protobuf_decodes_encoded_records(case):
    layout, values = case
    encoded = encode_records(layout, values)
    records = list(iter_frames(encoded.buffer.data))
    assert len(records) == len(encoded) == len(values[0])
    bound = layout.framed_size()
    for i, record in enumerate(records):
        expected = protobuf_example(layout, values, i)
        parsed = Example.FromString(bytes(record))
        assert message_bytes(parsed) == message_bytes(expected)
        assert len(record) == expected.ByteSize()  # no bytes that protobuf would not write
        start, end = encoded.offsets[i : i + 2]
        assert end - start == len(record) + FRAMING
        assert (end - start == bound) if layout.fixed_size else (end - start <= bound)
    assert encoded.buffer.size == encoded.offsets[-1]


@given(layouts_and_values(), st.booleans())
@examples(25)
def test_tensorflow_decodes_encoded_records(tmp_path_factory, case, compressed):
    layout, values = case
    encoded = encode_records(layout, values)
    path = tmp_path_factory.mktemp("tf") / "shard"
    path.write_bytes(member_of(encoded.buffer) if compressed else encoded.buffer.tobytes())
    types = {"float": tf.float32, "int64": tf.int64}
    spec = {
        f.name: tf.io.FixedLenFeature([], tf.string)
        if f.kind == "bytes"
        else tf.io.FixedLenFeature([f.size], types[f.kind])
        for f in layout.features
    }
    dataset = tf.data.TFRecordDataset(str(path), "GZIP" if compressed else "")
    parsed = [tf.io.parse_single_example(record, spec) for record in dataset]
    assert len(parsed) == len(values[0])
    for i, record in enumerate(parsed):
        for feature, array in zip(layout.features, values, strict=True):
            found = record[feature.name].numpy()
            if feature.kind == "bytes":
                assert found == array[i].tobytes()
            else:
                assert found.tobytes() == array[i].astype(found.dtype).tobytes()


@given(st.data(), st.sampled_from(["<f4", "|u1", "<i2"]))
def test_strided_and_contiguous_arrays_give_the_same_bytes(data, dtype):
    height, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    raster = np.arange(200, dtype=dtype).reshape(10, 20)
    if data.draw(st.booleans()):
        raster = np.asfortranarray(raster)
    windows = sliding_window_view(raster, (height, width))[
        data.draw(st.integers(0, 3)), :: data.draw(st.sampled_from([1, 2, 5, -1]))
    ]
    layout = RecordLayout((Feature.of("a", dtype, height * width, "band"), Feature.of("b", dtype, 1, "band")))
    ones = np.broadcast_to(np.array(7, dtype), (len(windows), 1))
    strided = encode_records(layout, [windows, ones])
    flat = encode_records(layout, [np.ascontiguousarray(windows).reshape(len(windows), -1), ones.copy()])
    assert strided.buffer.tobytes() == flat.buffer.tobytes()
    assert strided.offsets.tolist() == flat.offsets.tolist()


@given(layouts_and_values(max_records=6), st.data())
def test_keep_omits_records(case, data):
    layout, values = case
    count = len(values[0])
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    kept = encode_records(layout, values, keep)
    expected = encode_records(layout, [array[keep] for array in values])
    assert kept.buffer.tobytes() == expected.buffer.tobytes()
    assert kept.offsets.tolist() == expected.offsets.tolist()


def test_many_records_of_integers_are_encoded_in_batches():
    layout = RecordLayout((Feature.of("a", "i4", 50_000, "band"), Feature.of("b", "f4", 3)))
    numbers = np.arange(200_000, dtype="i4").reshape(4, 50_000) - 9
    floats = np.arange(12, dtype="f4").reshape(4, 3)
    decoded = [decode_example(r) for r in iter_frames(encode_records(layout, [numbers, floats]).buffer.data)]
    assert (np.stack([d["a"] for d in decoded]) == numbers).all()
    assert (np.stack([d["b"] for d in decoded]) == floats).all()
    found = decode_records(encode_records(layout, [numbers, floats]).buffer.data, layout)
    assert (found.context["a"] == numbers).all()
    assert (found.context["b"] == floats).all()


@given(st.lists(int64s, max_size=3), st.integers(0, 3), st.binary(max_size=12))
def test_malformed_integers_between_valid_records_raise(values, index, body):
    """A list is decoded as by protobuf, or the record raises an error."""
    layout = RecordLayout((Feature.of("a", "i8", 1, "band"), Feature.of("b", "f4", 1)))
    rows = [np.array(values, "i8"), np.ones(len(values), "f4")]
    frames = [frame(data) for data in iter_frames(encode_records(layout, rows).buffer.data)]
    message = encode_example(("a", 3, delimited(1, body)), ("b", 2, delimited(1, struct.pack("<f", 1))))
    index = min(index, len(frames))
    frames.insert(index, frame(message))
    parsed = parse_message(Example, message)
    expected = [] if parsed is None else list(parsed.features.feature["a"].int64_list.value)
    if len(expected) != 1:
        with pytest.raises(RecordError, match=f"record {index}: "):
            decode_records(b"".join(frames), layout)
        return
    found = decode_records(b"".join(frames), layout).context["a"][:, 0].tolist()
    assert found == [*values[:index], *expected, *values[index:]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x01" * 4999, "feature 'a' holds 4999 values; expected 5000"),
        (b"\x01" * 5001, "feature 'a' holds 5001 values; expected 5000"),
        (b"\x01" * 4999 + b"\x81", "The data ends inside a varint"),
        (b"\x01" * 4999 + b"\xff" * 10 + b"\x01", "A varint is longer than ten bytes"),
    ],
)
def test_invalid_long_lists_of_integers_raise(body, message):
    layout = RecordLayout((Feature.of("a", "i8", 5000, "band"),))
    good = encode_records(layout, [np.ones((1, 5000), "i8")]).buffer.tobytes()
    with pytest.raises(RecordError, match=f"record 1: {message}"):
        decode_records(good + frame(encode_example(("a", 3, delimited(1, body)))), layout)


def test_arrays_that_do_not_match_their_features_raise():
    layout = RecordLayout((Feature.of("a", "f4", 4), Feature.of("b", "f4", 4)))
    good = np.zeros((3, 2, 2), "f4")
    with pytest.raises(RecordError, match="Expected 2 arrays, one per feature; got 1"):
        encode_records(layout, [good])
    with pytest.raises(RecordError, match=r"'b' has shape \(3, 5\); expected 3 records of 4 values"):
        encode_records(layout, [good, np.zeros((3, 5), "f4")])
    with pytest.raises(RecordError, match="'a' has shape"):
        encode_records(layout, [good, good], keep=np.ones(2, bool))


# -- Reading -----------------------------------------------------------------------------------------


@given(layouts_and_values(max_records=1), st.randoms())
def test_messages_of_protobuf_are_decoded_in_any_order(case, random):
    layout, values = case
    for i in range(len(values[0])):
        message = protobuf_example(layout, values, i)
        assert decoded_bytes(decode_example(message.SerializeToString())) == message_bytes(message)
        # The order of a map in protobuf cannot be chosen: shuffle the serialized entries.
        entries = [
            Example(features=tf.train.Features(feature={name: feature})).features.SerializeToString()
            for name, feature in message.features.feature.items()
        ]
        random.shuffle(entries)
        body = b"".join(entries)
        shuffled = b"\x0a" + encode_varint(len(body)) + body
        assert decoded_bytes(decode_example(shuffled)) == message_bytes(message)


def encode_example(*features):
    """Encode an Example from (name, field number of the list, bytes of the list)."""
    entries = [
        delimited(1, delimited(1, name.encode()) + delimited(2, delimited(field, body)))
        for name, field, body in features
    ]
    return delimited(1, b"".join(entries))


@st.composite
def loose_lists(draw):
    """The bytes of a float or int64 list: any mixture of packed and single values."""
    field = draw(st.sampled_from([2, 3]))
    body = b""
    for _ in range(draw(st.integers(0, 4))):
        if field == 2:
            run = draw(st.lists(st.floats(width=32), max_size=4))
            packed = struct.pack(f"<{len(run)}f", *run)
            singles = b"".join(b"\x0d" + struct.pack("<f", value) for value in run)
        else:
            run = draw(st.lists(int64s, max_size=4))
            packed = b"".join(map(encode_varint, run))
            singles = b"".join(b"\x08" + encode_varint(value) for value in run)
        body += delimited(1, packed) if draw(st.booleans()) else singles
    return field, body


unknown_fields = st.sampled_from(
    [b"", b"\x38\x05", b"\x3d1234", b"\x3912345678", b"\x3a\x02hi", b"\x3b\x40\x01\x3c", b"\x12\x00"]
)


@given(st.lists(st.tuples(names, loose_lists()), max_size=4), unknown_fields, unknown_fields)
def test_unpacked_lists_duplicate_names_and_unknown_fields_are_decoded(parts, before, after):
    message = before + encode_example(*((name, *part) for name, part in parts)) + after
    assert decoded_bytes(decode_example(message)) == message_bytes(Example.FromString(message))


def compare_with_protobuf(message):
    if (expected := parse_message(Example, message)) is None:
        with pytest.raises(RecordError):
            decode_example(message)
    else:
        assert decoded_bytes(decode_example(message)) == message_bytes(expected)


@given(st.data())
@examples(400)
def test_damaged_messages_are_handled_as_by_protobuf(data):
    layout, values = data.draw(layouts_and_values(max_records=1))
    count = len(values[0])
    message = bytearray(
        protobuf_example(layout, values, 0).SerializeToString() if count else encode_example()
    )
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(message) - 1)) if message else 0
        change = data.draw(st.sampled_from(["flip", "cut", "insert", "double"]))
        if change == "flip" and message:
            message[position] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "cut":
            del message[position:]
        elif change == "insert":
            message[position:position] = data.draw(st.binary(min_size=1, max_size=4))
        else:
            message += bytes(message)
    compare_with_protobuf(bytes(message))


@given(st.binary(max_size=60))
@example(b"\x0a\x80")
@example(b"\x0b" * 200)
@example(b"\x0e")
@example(b"\x0b\x01" + bytes(8) + b"\x0c")
def test_random_bytes_are_handled_as_by_protobuf(noise):
    compare_with_protobuf(noise)


@pytest.mark.parametrize(
    ("field", "error"),
    [
        (b"\x00\x00", "invalid number 0"),
        (b"\x01" + bytes(8), "invalid number 0"),
        (b"\x02\x00", "invalid number 0"),
        (b"\x05" + bytes(4), "invalid number 0"),
        (b"\xb8\x80\x80\x80\x10\x05", "invalid number 536870919"),
        (b"\xb8\x80\x80\x80\x80\x00\x05", "tag of field 7 is longer than 5 bytes"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "decode"), [("Example", decode_example), ("SequenceExample", decode_sequence_example)]
)
def test_invalid_tags_raise_in_unknown_groups_too(kind, decode, field, error):
    for message in (field, b"\x0b" + field + b"\x0c", b"\x3b\x43" + field + b"\x44\x3c"):
        assert parse_message(getattr(tf.train, kind), message) is None
        with pytest.raises(RecordError, match=error):
            decode(message)


@pytest.mark.parametrize("kind", ["Example", "SequenceExample"])
def test_tensorflow_refuses_the_field_number_0_in_an_unknown_group(kind):
    """Unlike Python's protobuf; see `parse_message`."""
    tf.io.decode_proto(b"\x0b\x09" + bytes(8) + b"\x0c", f"tensorflow.{kind}", [], [], sanitize=True)
    with pytest.raises(tf.errors.DataLossError):
        tf.io.decode_proto(b"\x0b\x01" + bytes(8) + b"\x0c", f"tensorflow.{kind}", [], [], sanitize=True)


@given(layouts())
def test_layout_of_a_record(layout):
    values = [np.ones((1, f.size), f.dtype) for f in layout.features]
    found = read_layout(next(iter_frames(encode_records(layout, values).buffer.data)))
    assert [(f.name, f.kind, f.size) for f in found.features] == [
        (f.name, f.kind, f.size) for f in layout.features
    ]


def test_layout_of_empty_records_and_byte_strings_raises():
    with pytest.raises(RecordError, match="no features"):
        read_layout(b"")
    with pytest.raises(RecordError, match="'s' holds 2 byte strings"):
        read_layout(encode_example(("s", 1, delimited(1, b"x") + delimited(1, b"y"))))


# -- Many records at once ----------------------------------------------------------------------------


@given(layouts_and_values(max_records=40), st.booleans())
def test_many_records_are_decoded_together(case, verify):
    layout, values = case
    found = decode_records(encode_records(layout, values).buffer.data, layout, verify=verify)
    assert found.count == len(values[0])
    for feature, array in zip(layout.features, values, strict=True):
        np.testing.assert_array_equal(found.context[feature.name], array)


@given(layouts_and_values(max_records=6))
def test_values_of_uniform_records_are_views(case):
    layout, values = case
    buffer = encode_records(layout, values).buffer
    found = decode_records(buffer.data, layout)
    for feature in layout.features if layout.fixed_size and len(values[0]) else ():
        assert np.shares_memory(found.context[feature.name], buffer)


@given(st.lists(st.permutations("abc"), max_size=60), st.sampled_from(["ab", "c", "abc"]))
def test_features_in_any_order_are_decoded(orders, selected):
    features = {name: Feature.of(name, "f4", 3) for name in "abc"}
    buffer = b""
    for i, order in enumerate(orders):
        layout = RecordLayout(tuple(features[name] for name in order))
        values = [np.full((1, 3), 10 * i + ord(name), "f4") for name in order]
        buffer += encode_records(layout, values).buffer.tobytes()
    layout = RecordLayout(tuple(features[name] for name in selected))
    found = decode_records(buffer, layout)
    for name in selected:
        expected = [[10.0 * i + ord(name)] * 3 for i in range(len(orders))]
        assert found.context[name].tolist() == expected


@given(layouts_and_values(max_records=6), st.data())
def test_features_outside_the_layout_are_ignored(case, data):
    layout, values = case
    chosen = [k for k in range(len(values)) if data.draw(st.booleans())]
    others = {"text": [b"oak", b"x", b""], "two": [b"a", b"b"], "none": []}
    frames = b""
    for i in range(len(values[0])):
        message = protobuf_example(layout, values, i)
        for name, strings in others.items():
            if name not in message.features.feature:
                value = strings[i % len(strings) :][:1] if name == "text" else strings
                message.features.feature[name].bytes_list.value.extend(value)
        frames += frame(message.SerializeToString())
    if chosen:
        found = decode_records(frames, RecordLayout(tuple(layout.features[k] for k in chosen)))
        for k in chosen:
            np.testing.assert_array_equal(found.context[layout.features[k].name], values[k])


@given(st.lists(st.lists(st.binary(max_size=5), min_size=2, max_size=2), max_size=5), st.data())
def test_byte_strings_and_numbers_are_encoded_together(rows, data):
    """Two strings per record, an integer, and one string per record."""
    count = len(rows)
    flat = [string for row in rows for string in row]
    pairs = Ragged.packed(np.frombuffer(b"".join(flat), np.uint8), np.array([len(s) for s in flat], np.int64))
    firsts = pairs[np.arange(count) * 2]
    numbers = np.arange(count, dtype="i2") * 300
    layout = RecordLayout(
        (Feature.strings("pair", 2), Feature.of("n", "i2", 1, "band"), Feature.strings("first"))
    )
    keep = data.draw(st.none() | arrays(bool, count))
    encoded = encode_records(layout, [pairs, numbers, firsts], keep)
    found = []
    for record in iter_frames(encoded.buffer.data):
        message = Example.FromString(bytes(record))
        assert len(record) == message.ByteSize()
        feature = message.features.feature
        found.append((list(feature["pair"].bytes_list.value), *feature["n"].int64_list.value))
        assert list(feature["first"].bytes_list.value) == found[-1][0][:1]
    kept = range(count) if keep is None else np.flatnonzero(keep)
    assert found == [(rows[i], 300 * i) for i in kept]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ((Feature.of("b", "f4", 4),), "record 7: feature 'a' not found; available: 'b'"),
        (
            (Feature.of("a", "i4", 4, "band"),),
            "record 7: feature 'a' is a list of kind int64; expected float",
        ),
        ((Feature.of("a", "f4", 5),), "record 7: feature 'a' holds 5 values; expected 4"),
    ],
)
def test_records_that_do_not_match_the_layout_raise(features, message):
    layout = RecordLayout((Feature.of("a", "f4", 4),))
    good = encode_records(layout, [np.zeros((2, 4), "f4")]).buffer.tobytes()
    other = RecordLayout(features)
    bad = encode_records(other, [np.zeros((1, f.size), f.dtype) for f in features]).buffer.tobytes()
    with pytest.raises(RecordError, match=f"scene.tfrecord: {message}"):
        decode_records(good + bad, layout, source="scene.tfrecord", first=5)


@given(st.sampled_from(["f4", "i2"]), st.data())
@examples(300)
def test_damaged_frames_never_give_wrong_values(kind, data):
    layout = RecordLayout((Feature.of("a", kind, 4, "band"),))
    values = np.arange(12, dtype=kind).reshape(3, 4)
    buffer = bytearray(encode_records(layout, [values]).buffer.tobytes())
    position = data.draw(st.integers(0, len(buffer) - 1))
    if data.draw(st.booleans()):
        buffer[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del buffer[position:]
    try:
        read = decode_records(buffer, layout).context["a"].tolist()
    except RecordError:
        return
    # Only a cut between two records is not detected here; callers compare the number of records.
    assert len(read) < 3
    assert read == values.tolist()[: len(read)]


# -- Frames ------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20), max_size=5))
@examples(30)
def test_frames_match_tensorflow(tmp_path_factory, records):
    path = str(tmp_path_factory.mktemp("frames") / "shard")
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    with open(path, "rb") as file:
        written = file.read()
    assert b"".join(map(frame, records)) == written
    assert [bytes(data) for data in iter_frames(written)] == records
    assert (
        frame_offsets(memoryview(written), source="x").tolist()
        == np.cumsum([0, *(len(record) + FRAMING for record in records)]).tolist()
    )


def test_frame_errors_describe_the_record():
    buffer = frame(b"one") + frame(b"two")
    with pytest.raises(RecordError, match="x: record 6 is truncated: expected 19 bytes; got 18"):
        list(iter_frames(buffer[:-1], source="x", first=5))
    with pytest.raises(RecordError, match="x: record 6 is truncated: expected 19 bytes; got 18"):
        frame_offsets(memoryview(buffer[:-1]), source="x", first=5)
    with pytest.raises(RecordError, match="x: record 0 is corrupt: the checksum of its data"):
        list(iter_frames(buffer.replace(b"one", b"ONE"), source="x"))
    with pytest.raises(RecordError, match="not a TFRecord file"):
        list(iter_frames(b"short"))
    with pytest.raises(RecordError, match="not a TFRecord file"):
        list(iter_frames(b"II*\0 this is a TIFF file", source="x"))


# -- Gzip members ------------------------------------------------------------------------------------


def test_members_are_standard_gzip_and_reproducible():
    data = np.arange(10_000, dtype="u2").view("u1")
    member = member_of(data)
    assert member.startswith(MEMBER_HEADER)
    assert member == member_of(bytes(data)) == member_of(data.data)
    assert gzip.decompress(member) == zlib.decompress(member, 31) == data.tobytes()
    assert member_of(b"") == b""


@needs_posix
@pytest.mark.long
def test_members_do_not_depend_on_addresses():
    """The stacks of threads are at different addresses; without precautions, a few threads differ."""
    records = [frame(bytes([number]) * (300 + number)) * 8 for number in range(20)]
    found, done = set(), threading.Event()

    def work():
        found.add(b"".join(map(member_of, records)))
        done.wait()

    before = threading.stack_size(256 << 10)
    try:
        threads = [threading.Thread(target=work) for _ in range(4000)]
        for thread in threads:
            thread.start()
    finally:
        threading.stack_size(before)
        done.set()
    for thread in threads:
        thread.join()
    assert len(found) == 1


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=30), st.integers(0, 2**40))
def test_an_index_is_read_and_ignored_by_other_readers(runs, first):
    members = [member_of(run) for run in runs]
    index = MemberIndex(first, tuple(map(len, runs)), tuple(map(len, members)))
    body = b"".join(members)[len(MEMBER_HEADER) :]
    for header in (indexed_header(index), indexed_header(index, length=index_header_size(len(runs)))):
        shard = header + body
        assert gzip.decompress(shard) == b"".join(runs)
        found = read_index(shard)
        assert (found.first_record, found.records) == (first, index.records)
        assert found.total == sum(map(len, runs))
        ends = np.cumsum(found.sizes)
        assert ends[-1] == len(shard)
        for run, start, end in zip(runs, [0, *ends[:-1]], ends, strict=True):
            assert gzip.decompress(shard[start:end]) == run
            assert inflate_member(shard[start:], len(run)) == (run, end - start)


@pytest.mark.parametrize("count", [8_000, 50_000, 1_000_000])
def test_large_indices_are_coarsened(count):
    index = MemberIndex(3, (2,) * count, (70_000,) * count)
    for header in (indexed_header(index), indexed_header(index, length=index_header_size(count))):
        found = read_index(header)
        assert found.total == index.total
        assert sum(found.sizes) == sum(index.sizes) + len(header) - len(MEMBER_HEADER)
        assert 4_000 < len(found.sizes) <= 16_384


def test_tensorflow_reads_indexed_shards(tmp_path):
    layout = RecordLayout((Feature.of("a", "f4", 2),))
    runs = [encode_records(layout, [np.full((3, 2), i, "f4")]).buffer for i in range(4)]
    members = [member_of(run) for run in runs]
    header = indexed_header(MemberIndex(0, (3,) * 4, tuple(map(len, members))))
    path = tmp_path / "shard.gz"
    path.write_bytes(header + b"".join(members)[len(MEMBER_HEADER) :])
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path), "GZIP")]
    assert b"".join(map(frame, records)) == b"".join(run.tobytes() for run in runs)


@given(st.binary(max_size=40))
@example(MEMBER_HEADER)
@example(b"\x1f\x8b\x08\x04" + bytes(6) + b"\x08\x00" + b"BC\x04\x00abcd")
def test_other_headers_have_no_index(head):
    assert read_index(head) is None


@pytest.mark.parametrize("position", range(25))
def test_truncated_indices_raise(position):
    index = MemberIndex(5, (3, 4), (700, 800))
    header = bytearray(indexed_header(index))
    del header[position:]
    if position < 16:  # not even the name of the index remains
        assert read_index(header) is None
    else:
        with pytest.raises(RecordError, match="index in the gzip header is truncated"):
            read_index(header)


def test_damaged_members_raise():
    member = member_of(b"pixels" * 100)
    for size in (600, None):
        with pytest.raises(RecordError, match="truncated"):
            inflate_member(member[:-1], size)
        with pytest.raises(RecordError, match="corrupt"):
            inflate_member(member[:-8] + bytes(8), size)
    with pytest.raises(RecordError, match="more than the expected 500 bytes"):
        inflate_member(member, 500)
    with pytest.raises(RecordError, match="takes more than 1,000 bytes"):
        inflate_member(member, limit=1000, held=500)
    assert inflate_member(member, limit=1000, held=400)[1] == len(member)
    with pytest.raises(RecordError, match="corrupt"):
        inflate_member(b"this is no member")
