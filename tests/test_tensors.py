"""TensorProtos with raw and listed values, compared with TensorFlow and protobuf, and damaged ones."""

from __future__ import annotations

import sys
from contextlib import suppress

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st
from tensorflow.core.framework.tensor_pb2 import TensorProto

from tests.foreign import parsed_tensor
from tests.strategies import tensor_arrays
from xee_tf.errors import MissingExtraError, OptionError, RecordError
from xee_tf.tensors import decode_tensor, encode_tensors, is_tensor, tensor_size
from xee_tf.tensors.protos import encode_tensor

TYPED_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "bool": "bool_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    "object": "string_val",
}


def typed_message(array):
    """Return a protobuf message with the array in the typed field of its dtype."""
    name = array.dtype.name
    message = TensorProto(dtype=tf.as_dtype("string" if name == "object" else name).as_datatype_enum)
    message.tensor_shape.SetInParent()
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    values = array.ravel()
    if name.startswith("complex"):
        values = values.view(values.real.dtype)
    elif name in ("float16", "bfloat16"):
        values = values.view("u2")
    getattr(message, TYPED_FIELDS.get(name, "int_val")).extend(values.tolist())
    return message


def assert_same(found, expected):
    """Compare dtype, shape and values. All NaNs are equal, because protobuf does not preserve their bits."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if expected.dtype == object:
        assert found.tolist() == expected.tolist()
    elif expected.dtype.kind in "fcV":
        wide = "complex128" if expected.dtype.kind == "c" else "float64"
        with np.errstate(invalid="ignore"):  # signalling NaNs
            np.testing.assert_array_equal(found.astype(wide), expected.astype(wide))
    else:
        np.testing.assert_array_equal(found, expected)


@given(tensor_arrays())
def test_encoding_is_identical_to_tensorflow(array):
    data = encode_tensor(array)
    assert data == tf.io.serialize_tensor(tf.constant(array)).numpy()
    found = decode_tensor(data)
    assert_same(found, array)
    if array.dtype != object:
        assert found.tobytes() == array.tobytes()
    empty = array if array.dtype != object else np.full(array.shape, b"", object)
    assert len(encode_tensor(empty)) == tensor_size(array.dtype, array.shape)
    assert is_tensor(data)


@given(tensor_arrays())
def test_typed_fields(array):
    assert_same(decode_tensor(typed_message(array).SerializeToString()), array)


@pytest.mark.filterwarnings("ignore:Setting the dtype on a NumPy array:DeprecationWarning")
@given(tensor_arrays())
def test_make_tensor_proto(array):
    """`make_tensor_proto` lists scalars and strings, and stores other values as raw bytes."""
    message = tf.make_tensor_proto(array)
    found = decode_tensor(message.SerializeToString())
    assert_same(found, array)
    assert_same(found, tf.make_ndarray(message).astype(array.dtype))


@given(tensor_arrays(), st.data())
def test_last_value_is_repeated(array, data):
    values = array.ravel()
    message = typed_message(values[: data.draw(st.integers(0, array.size))])
    message.tensor_shape.CopyFrom(typed_message(array).tensor_shape)
    serialized = message.SerializeToString()
    assert_same(decode_tensor(serialized), parsed_tensor(serialized, array))


def test_repeated_string_keeps_null_bytes():
    message = typed_message(np.array([b"a", b"\0"], object))
    message.tensor_shape.dim[0].size = 3
    assert decode_tensor(message.SerializeToString()).tolist() == [b"a", b"\0", b"\0"]


@pytest.mark.parametrize("value", [np.float32(1), np.int16(2), np.array(b"ab", object)])
def test_repeated_values_are_views(value):
    message = typed_message(np.asarray(value))
    for _ in range(2):
        message.tensor_shape.dim.add(size=1 << 10)
    found = decode_tensor(message.SerializeToString())
    assert found.shape == (1024,) * 2
    assert set(found.strides) == {0}


@pytest.mark.parametrize("count", [1, 2])
def test_repeated_values_are_limited(count):
    """A few bytes must not fill the memory."""
    message = typed_message(np.ones(count, "f4"))
    del message.tensor_shape.dim[:]
    message.tensor_shape.dim.add(size=1 << 24)
    assert decode_tensor(message.SerializeToString()).nbytes == 64 << 20
    message.tensor_shape.dim[0].size += 1
    with pytest.raises(RecordError, match="takes more than 67,108,864 bytes"):
        decode_tensor(message.SerializeToString())


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5), st.data())
def test_unpacked_integers(numbers, data):
    """A parser must accept a mix of packed lists and single values."""
    body = b""
    for part in np.split(np.array(numbers), sorted(data.draw(st.sets(st.integers(1, 4))))):
        single = TensorProto(int_val=part.tolist()).SerializeToString()
        if part.size == 1 and data.draw(st.booleans()):
            single = b"\x38" + single[2:]  # field 7 as a bare varint
        body += single
    head = TensorProto(dtype=3)
    head.tensor_shape.dim.add(size=len(numbers))
    serialized = body + head.SerializeToString()
    assert list(TensorProto.FromString(serialized).int_val) == numbers
    assert decode_tensor(serialized).tolist() == numbers


def test_unpacked_floats():
    head = typed_message(np.zeros(0, "f4"))
    head.tensor_shape.dim[0].size = 2
    serialized = (
        head.SerializeToString() + b"\x2d" + np.float32(1.5).tobytes() + b"\x2d" + np.float32(2).tobytes()
    )
    assert list(TensorProto.FromString(serialized).float_val) == [1.5, 2]
    assert decode_tensor(serialized).tolist() == [1.5, 2]


@given(tensor_arrays())
def test_encode_tensors(array):
    batch = np.stack([array, array[..., ::-1] if array.ndim else array])
    assert encode_tensors(batch) == [encode_tensor(element) for element in batch]


def test_memory_layout_and_byte_order():
    array = np.arange(24, dtype=">i4").reshape(2, 3, 4).T[::2]
    assert_same(decode_tensor(encode_tensor(array)), array.astype("<i4"))


def test_numpy_string_dtypes():
    strings = ["land", "", "été"]
    for array in (np.array(strings), np.array(strings, object), np.array(strings, np.dtypes.StringDType())):
        assert decode_tensor(encode_tensor(array)).tolist() == [string.encode() for string in strings]
    assert decode_tensor(encode_tensor(np.array([b"ab", b"c"]))).tolist() == [b"ab", b"c"]
    assert decode_tensor(encode_tensor([b"a\0", b""])).tolist() == [b"a\0", b""]
    assert decode_tensor(encode_tensor(b"a\0")).tolist() == b"a\0"
    one, other = encode_tensors(np.array([b"a\0", b"b"], object))
    assert (decode_tensor(one).tolist(), decode_tensor(other).tolist()) == (b"a\0", b"b")


@given(tensor_arrays(), st.booleans(), st.data())
@example(np.zeros(3, "f4"), False, None)
def test_damaged_tensors(array, typed, data):
    whole = bytearray(typed_message(array).SerializeToString() if typed else encode_tensor(array))
    if data is None:
        whole[-1:] = b""
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            start = data.draw(st.integers(0, len(whole) - 1))
            whole[start : start + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    damaged = bytes(whole)
    try:
        found = decode_tensor(damaged)
    except RecordError:
        return
    if found.size < 1000:
        # TensorFlow also validates the fields of other dtypes, which are ignored here.
        with suppress(tf.errors.InvalidArgumentError):
            assert_same(found, parsed_tensor(damaged, found))


def test_invalid_tensors():
    message = typed_message(np.zeros(3, "f4"))
    message.tensor_shape.dim[0].size = 2
    with pytest.raises(RecordError, match=r"shape \[2\] lists 3 values"):
        decode_tensor(message.SerializeToString())
    message.tensor_shape.dim[0].size = -1
    with pytest.raises(RecordError, match="dimension of length -1"):
        decode_tensor(message.SerializeToString())
    with pytest.raises(RecordError, match="rank is declared as unknown"):
        decode_tensor(b"\x08\x01\x12\x02\x18\x01")
    with pytest.raises(RecordError, match=r"float32 tensor of shape \[2\] has 3 bytes; expected 8"):
        decode_tensor(b"\x08\x01\x12\x04\x12\x02\x08\x02\x22\x03abc")
    with pytest.raises(RecordError, match=r"element type 20, which is not supported.* 1 \(float32\)"):
        decode_tensor(TensorProto(dtype=20).SerializeToString())
    with pytest.raises(RecordError, match="element type 0"):
        decode_tensor(b"")
    with pytest.raises(OptionError, match=r"datetime64\[s\] cannot be sent as a tensor"):
        encode_tensor(np.zeros(2, "M8[s]"))
    with pytest.raises(OptionError, match="contains None; expected only str or bytes"):
        encode_tensor(np.array(["a", None], object))


def test_bfloat16_without_ml_dtypes(monkeypatch):
    data = encode_tensor(np.zeros(2, tf.bfloat16.as_numpy_dtype))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingExtraError, match=r"needs ml_dtypes.*pip install \"xee-tf\[hosted\]\""):
        decode_tensor(data)
