"""The six payload formats, encoded and decoded, compared with TensorFlow, protobuf and the json module."""

from __future__ import annotations

import base64
import gc
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("google.protobuf")

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import xee_tf
from tests.foreign import parsed_tensor
from tests.strategies import TENSOR_DTYPES, tensor_arrays
from xee_tf.errors import OptionError, RecordError
from xee_tf.remote.payloads.formats import FORMATS, PayloadFormat, create_payload
from xee_tf.remote.payloads.grpc_formats import GrpcExamples, GrpcSerializedTensors, GrpcTensors
from xee_tf.remote.payloads.json_formats import NdArrays, RawJson, SerializedTensors
from xee_tf.remote.payloads.predict_messages import (
    ServedModel,
    decode_predict_request,
    decode_predict_response,
    encode_predict_request,
    encode_predict_response,
)
from xee_tf.remote.payloads.strings import serialize_tensors
from xee_tf.serving.predictions import JsonRequest, encode_json_response
from xee_tf.tensors.protos import encode_tensor

GOLDEN = Path(__file__).parent / "golden" / "payloads"

# -- The messages of tensorflow.serving, as its .proto files describe them ------------------------------


def serving_messages():
    """Create the protobuf classes PredictRequest and PredictResponse in a separate package."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="xee_tf_tests/predict.proto", package="xee_tf_tests", syntax="proto3"
    )
    file.dependency.extend(["tensorflow/core/framework/tensor.proto", "google/protobuf/wrappers.proto"])

    def message(name, fields, maps=()):
        found = file.message_type.add(name=name)
        for number, (key, kind, *more) in fields.items():
            part = found.field.add(name=key, number=number, label=field.LABEL_OPTIONAL)
            if kind == "string":
                part.type = field.TYPE_STRING
                part.label = field.LABEL_REPEATED if more else field.LABEL_OPTIONAL
            else:
                part.type, part.type_name = field.TYPE_MESSAGE, kind
        for number, key in maps:
            entry = found.nested_type.add(name=f"{key.capitalize()}Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING)
            entry.field.add(
                name="value",
                number=2,
                label=field.LABEL_OPTIONAL,
                type=field.TYPE_MESSAGE,
                type_name=".tensorflow.TensorProto",
            )
            found.field.add(
                name=key,
                number=number,
                label=field.LABEL_REPEATED,
                type=field.TYPE_MESSAGE,
                type_name=f".xee_tf_tests.{name}.{entry.name}",
            )
        return found

    spec = message(
        "ModelSpec",
        {
            1: ("name", "string"),
            2: ("version", ".google.protobuf.Int64Value"),
            3: ("signature_name", "string"),
            4: ("version_label", "string"),
        },
    )
    spec.oneof_decl.add(name="version_choice")
    for part in spec.field:
        if part.number in (2, 4):
            part.oneof_index = 0
    model = ".xee_tf_tests.ModelSpec"
    message(
        "PredictRequest", {1: ("model_spec", model), 3: ("output_filter", "string", "many")}, [(2, "inputs")]
    )
    message("PredictResponse", {2: ("model_spec", model)}, [(1, "outputs")])
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"xee_tf_tests.{name}"))
        for name in ("PredictRequest", "PredictResponse")
    ]


PredictRequest, PredictResponse = serving_messages()


# -- Batches -----------------------------------------------------------------------------------------

NUMBERS = tuple(name for name in TENSOR_DTYPES if not name.startswith("complex") and name != "object")
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
texts = st.text(st.characters(codec="utf-8"), max_size=4).map(str.encode)


@st.composite
def batches(draw, dtypes=TENSOR_DTYPES):
    """Generate batches: named arrays of shape (n, ...)."""
    count = draw(st.integers(1, 4))
    batch = {}
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        one = draw(tensor_arrays(dtypes))
        values = np.stack([one] * count)
        if one.size and count > 1:  # make the instances differ
            values[1:] = np.zeros((), one.dtype) if one.dtype != object else b""
        batch[name] = values
    return batch


@st.composite
def batches_for(draw, payload):
    """Generate batches that a payload format supports."""
    if payload.format == "ND_ARRAYS":
        count, bands = draw(st.integers(1, 4)), draw(st.lists(names, min_size=1, max_size=3, unique=True))
        dtype = draw(st.sampled_from(["float32", "float64", "uint8", "int16"]))
        shape = (count, *draw(st.sampled_from([(), (2, 3, 1), (1, 1, 1)])))
        return {name: draw(arrays(dtype, shape)) for name in bands}
    if payload.format == "RAW_JSON":
        # Empty lists do not define the number of dimensions.
        batch = draw(batches(NUMBERS).filter(lambda batch: all(array.size for array in batch.values())))
        if draw(st.booleans()):
            count = len(next(iter(batch.values())))
            batch[draw(names.filter(lambda name: name not in batch))] = draw(
                arrays(object, count, elements=texts)
            )
        return batch
    if payload.format == "GRPC_TF_EXAMPLES":
        return draw(batches(("float32", "float16", "uint8", "bool", "object")))
    return draw(batches())


@st.composite
def payloads_and_batches(draw):
    payload = create_payload(
        draw(st.sampled_from(list(FORMATS))),
        model_decodes=draw(st.booleans()),
        numbers_as_strings=draw(st.booleans()),
        served_model=draw(st.sampled_from([ServedModel(), ServedModel("model", 3, None, "serve")])),
    )
    return payload, draw(batches_for(payload))


def item_specs(batch):
    return {name: (array.dtype, array.shape[1:]) for name, array in batch.items()}


def longest_string(batch):
    return max((len(s) for a in batch.values() if a.dtype == object for s in a.ravel()), default=0)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        if array.dtype == object:
            assert found[name].tolist() == array.tolist()
        else:
            wide = array.dtype if array.dtype.kind in "biu" else "complex128"
            np.testing.assert_array_equal(found[name].astype(wide), array.astype(wide))


def batch_slice(batch, first, stop):
    return {name: array[first:stop] for name, array in batch.items()}


@given(payloads_and_batches())
def test_min_size(case):
    payload, batch = case
    count = len(next(iter(batch.values())))
    minimum, size = payload.min_size(item_specs(batch), count), len(payload.encode(batch))
    assert minimum <= size
    if payload.format not in ("RAW_JSON", "ND_ARRAYS") and not longest_string(batch):
        assert minimum == size


def min_values(array):
    """Return an array of the same shape with the values that take the fewest characters."""
    return np.full(array.shape, b"" if array.dtype == object else array.dtype == bool, array.dtype)


@given(payloads_and_batches())
def test_min_size_is_exact_for_min_values(case):
    payload, batch = case
    count = len(next(iter(batch.values())))
    batch = {name: min_values(array) for name, array in batch.items()}
    assert payload.min_size(item_specs(batch), count) == len(payload.encode(batch))


@given(payloads_and_batches(), st.data())
def test_requests_are_filled_up_to_the_limit(case, data):
    payload, batch = case
    count = len(next(iter(batch.values())))
    singles = [len(payload.encode(batch_slice(batch, i, i + 1))) for i in range(count)]
    limit = data.draw(st.integers(max(singles), sum(singles)))
    done = 0
    for request in payload.requests(batch, limit):
        stop = request.first + request.count
        assert request.first == done
        assert request.body == payload.encode(batch_slice(batch, request.first, stop))
        assert len(request.body) <= limit
        if stop < count:
            assert len(payload.encode(batch_slice(batch, request.first, stop + 1))) > limit
        done = stop
    assert done == count
    largest = singles.index(max(singles))
    with pytest.raises(OptionError, match=rf"Instance {largest} of .* takes .* Use smaller tiles"):
        next(payload.requests(batch, max(singles) - 1))  # raised before the first request


# -- Requests, decoded by other libraries ------------------------------------------------------------


def instance(array):
    """Return the first instance, as an array even if it has no dimensions."""
    return array[:1].reshape(array.shape[1:])


def stacked(values, like):
    found = np.empty(like.shape, like.dtype)
    for index, value in enumerate(values):
        found[index] = value[()]
    return found


@given(batches(), st.booleans())
def test_serialized_tf_tensors_with_tensorflow(batch, model_decodes):
    payload = SerializedTensors(model_decodes=model_decodes)
    message = json.loads(payload.encode(batch))
    assert list(message) == ["instances"]
    for name, array in batch.items():
        found = [row[name] for row in message["instances"]]
        assert all(len(row) == len(batch) for row in message["instances"])
        if model_decodes:
            tensors = [tf.io.decode_base64(text).numpy() for text in found]  # like a prepared model
        else:
            tensors = [base64.b64decode(value["b64"], validate=True) for value in found]
        assert_same(
            {name: stacked([parsed_tensor(data, instance(array)) for data in tensors], array)}, {name: array}
        )


@given(batches_for(RawJson()), st.booleans())
def test_raw_json_with_json(batch, quoted):
    message = json.loads(RawJson(numbers_as_strings=quoted).encode(batch))
    for name, array in batch.items():
        values = [row[name] for row in message["instances"]]
        leaves = np.array(values, object).ravel().tolist() if array.size else []
        if array.dtype == object:
            assert [leaf.encode() for leaf in leaves] == array.ravel().tolist()
            continue
        if quoted and array.dtype != bool:
            assert all(isinstance(leaf, str) for leaf in leaves)
        if array.dtype.kind in "iu":
            expected = [int(leaf) for leaf in leaves]
            assert expected == array.ravel().tolist()
        else:
            with np.errstate(invalid="ignore"):  # conversion of NaN to bfloat16
                found = np.array([float(leaf) for leaf in leaves]).astype(array.dtype)
            np.testing.assert_array_equal(found.astype("float64"), array.ravel().astype("float64"))


def test_names_with_special_characters():
    batch = {name: np.array([index, index]) for index, name in enumerate(["%s", "100 %", '"', "é", "{"])}
    rows = json.loads(RawJson(numbers_as_strings=False).encode(batch))["instances"]
    assert rows == [{name: index for index, name in enumerate(batch)}] * 2


@given(arrays("float32", (2, 3, 4, 1)), arrays("float32", (2, 3, 4, 1)))
def test_nd_arrays_are_channels_first(red, nir):
    message = json.loads(NdArrays().encode({"red": red, "nir": nir}))
    found = np.array(message["instances"], "float32")
    np.testing.assert_array_equal(found, np.concatenate([red, nir], -1).transpose(0, 3, 1, 2))


def test_nd_arrays_for_tables_and_single_arrays():
    def instances(batch):
        return json.loads(NdArrays().encode(batch))["instances"]

    assert instances({"a": np.array([1, 2]), "b": np.array([0.5, 4])}) == [[1, 0.5], [2, 4]]
    assert instances({"vector": np.array([[1, 2, 3]])}) == [[1, 2, 3]]
    assert instances({"image": np.zeros((1, 2, 2, 3), "uint8")}) == np.zeros((1, 2, 2, 3)).tolist()
    with pytest.raises(
        OptionError, match=r"must have the same shape for ND_ARRAYS.*; got .*'a': \(2,\), 'b': \(\)"
    ):
        NdArrays().encode({"a": np.zeros((1, 2)), "b": np.zeros(1)})


@given(batches())
def test_grpc_tf_tensors_with_protobuf(batch):
    spec = ServedModel("land", 2, None, "serve")
    data = GrpcTensors(spec).encode(batch)
    message = PredictRequest.FromString(data)
    assert message.model_spec.name == "land"
    assert message.model_spec.version.value == 2
    assert message.model_spec.signature_name == "serve"
    assert set(message.inputs) == set(batch)
    for name, array in batch.items():
        tensor = message.inputs[name]
        assert_same({name: parsed_tensor(tensor.SerializeToString(), array)}, {name: array})


@given(batches(), st.booleans())
def test_grpc_serialized_tf_tensors_with_protobuf(batch, model_decodes):
    payload = GrpcSerializedTensors(model_decodes=model_decodes)
    message = PredictRequest.FromString(payload.encode(batch))
    for name, array in batch.items():
        strings = tf.make_ndarray(message.inputs[name])
        assert strings.shape == (len(array),)
        tensors = [tf.io.decode_base64(s).numpy() if model_decodes else s for s in strings]
        assert_same(
            {name: stacked([parsed_tensor(data, instance(array)) for data in tensors], array)}, {name: array}
        )


@given(batches_for(GrpcExamples()))
def test_grpc_tf_examples_with_tensorflow(batch):
    message = PredictRequest.FromString(GrpcExamples().encode(batch))
    assert list(message.inputs) == ["input"]
    examples = tf.make_ndarray(message.inputs["input"])
    for index, data in enumerate(examples):
        features = tf.train.Example.FromString(data).features.feature
        assert set(features) == set(batch)
        for name, array in batch.items():
            if array.dtype == object:
                expected = array[index : index + 1].ravel().tolist()
                assert list(features[name].bytes_list.value) == expected
            else:
                found = np.array(features[name].float_list.value, "float32")
                np.testing.assert_array_equal(found, array[index].ravel().astype("float32"))


def test_examples_without_strings():
    request = PredictRequest.FromString(GrpcExamples().encode({"names": np.empty((2, 0), object)}))
    examples = map(tf.train.Example.FromString, tf.make_ndarray(request.inputs["input"]))
    assert [list(example.features.feature["names"].bytes_list.value) for example in examples] == [[], []]


def test_examples_with_parse_example():
    """Parse several Examples at once with a feature spec, as a model does."""
    batch = {"B4": np.arange(12, dtype="float32").reshape(2, 2, 3, 1), "name": np.array(["oak", "elm"])}
    data = GrpcExamples().encode(batch)
    examples = tf.make_ndarray(PredictRequest.FromString(data).inputs["input"])
    spec = {"B4": tf.io.FixedLenFeature([2, 3, 1], tf.float32), "name": tf.io.FixedLenFeature([], tf.string)}
    found = tf.io.parse_example(examples, spec)
    np.testing.assert_array_equal(found["B4"], batch["B4"])
    assert found["name"].numpy().tolist() == [b"oak", b"elm"]


def test_prepared_model_decodes_both_serialized_formats(tmp_path):
    class Sum(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None, 2, 2, 1], tf.float32, name=n) for n in ("B4", "B5")]
        )
        def __call__(self, B4, B5):  # noqa: N803
            return {"sum": B4 + B5, "none": tf.zeros_like(B4)}

    tf.saved_model.save(Sum(), str(tmp_path / "sum"))
    xee_tf.prepare_model(tmp_path / "sum", tmp_path / "prepared")
    prepared = tf.saved_model.load(str(tmp_path / "prepared")).signatures["serving_default"]
    batch = {name: np.random.default_rng(0).random((3, 2, 2, 1), "float32") for name in ("B4", "B5")}
    for payload in (SerializedTensors(), GrpcSerializedTensors()):
        body = payload.encode(batch)
        if payload.is_grpc:
            sent = decode_predict_request(body).inputs
        else:
            sent = JsonRequest.parse(body).inputs(dict.fromkeys(batch, object))
        outputs = prepared(**{name: tf.constant(strings) for name, strings in sent.items()})
        outputs = {name: tensor.numpy() for name, tensor in outputs.items()}
        response = encode_predict_response(outputs) if payload.is_grpc else encode_json_response(outputs)
        found = payload.decode(response, count=3)
        np.testing.assert_array_equal(found["sum"], batch["B4"] + batch["B5"])
        np.testing.assert_array_equal(found["none"], np.zeros((3, 2, 2, 1)))


# -- Predict messages --------------------------------------------------------------------------------

specs = st.builds(
    ServedModel,
    name=names | st.just(""),
    version=st.none() | st.integers(0, 2**40),
    signature_name=names | st.just(""),
) | st.builds(ServedModel, name=names, label=names | st.just(""))


@given(batches(), specs, st.lists(names, max_size=2))
def test_predict_messages_round_trip(batch, spec, output_filter):
    data = encode_predict_request(batch, spec)
    message = PredictRequest.FromString(data)
    assert len(message.SerializeToString()) == len(data)
    message.output_filter.extend(output_filter)
    assert message.model_spec.WhichOneof("version_choice") == (
        "version" if spec.version is not None else "version_label" if spec.label is not None else None
    )
    request = decode_predict_request(message.SerializeToString())
    assert request.served_model == spec
    assert request.output_filter == tuple(output_filter)
    assert_same({name: request.inputs[name] for name in batch}, batch)

    data = encode_predict_response(batch, spec)
    message = PredictResponse.FromString(data)
    assert len(message.SerializeToString()) == len(data)
    assert ServedModel.decode(memoryview(message.model_spec.SerializeToString())) == spec
    outputs = decode_predict_response(message.SerializeToString())
    assert_same({name: outputs[name] for name in batch}, batch)


def test_unknown_and_repeated_fields():
    """Unknown fields, another order of the fields, and repeated fields, of which the last applies."""
    first, second = (encode_predict_response({"p": np.array([n])}, ServedModel("m", n)) for n in (1, 2))
    assert decode_predict_response(b"\x7a\x02hi" + first + second)["p"].tolist() == [2]
    assert decode_predict_response(b"") == {}
    requests = [encode_predict_request({"p": np.array([n])}, ServedModel("m", n)) for n in (1, 2)]
    request = decode_predict_request(b"\x7a\x02hi" + b"".join(requests))
    assert request.served_model == ServedModel("m", 2)
    assert request.inputs["p"].tolist() == [2]


@given(batches(("float32", "int16", "object")), st.data())
def test_damaged_messages(batch, data):
    whole = bytearray(encode_predict_response(batch, ServedModel("m", 1)))
    index = data.draw(st.integers(0, len(whole) - 1))
    whole[index : index + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        decode_predict_response(bytes(whole))
    except RecordError as error:
        assert str(error)  # noqa: PT017


# -- Responses ---------------------------------------------------------------------------------------


def server_response(payload, outputs):
    """Return the response of a server whose model uses this format."""
    if "SERIALIZED" in payload.format:
        outputs = {
            name: np.array(serialize_tensors(array, in_base64=payload.model_decodes), object)
            for name, array in outputs.items()
        }
        if not payload.is_grpc and not payload.model_decodes:
            rows = json.dumps(
                {
                    "outputs": {
                        name: [{"b64": base64.b64encode(s).decode()} for s in strings]
                        for name, strings in outputs.items()
                    }
                }
            )
            return rows.encode()
    return (encode_predict_response if payload.is_grpc else encode_json_response)(outputs)


@given(payloads_and_batches())
def test_responses_round_trip(case):
    payload, batch = case
    if payload.format in ("RAW_JSON", "ND_ARRAYS"):
        batch = {name: array for name, array in batch.items() if array.dtype != object}
    if not batch or any(not array.size for array in batch.values()):
        return
    is_text = payload.format in ("RAW_JSON", "ND_ARRAYS")
    [*_, last] = batch
    found = payload.decode(
        server_response(payload, batch),
        count=len(batch[last]),
        name=last,
        dtypes={name: array.dtype for name, array in batch.items()} if is_text else None,
    )
    assert_same({name: found[name] for name in batch}, batch)


TENSORS = [tf.io.serialize_tensor(tf.constant(values)).numpy() for values in ([1.5, np.nan], [np.inf, 2.0])]
TEXTS = [tf.io.encode_base64(tensor).numpy().decode() for tensor in TENSORS]
EXPECTED = np.array([[1.5, np.nan], [np.inf, 2]], "float32")


@pytest.mark.parametrize(
    "body",
    [
        {"predictions": TEXTS},
        {"predictions": [{"p": text} for text in TEXTS], "deployedModelId": "7", "modelVersionId": "1"},
        {"predictions": [text + "==" for text in TEXTS]},
        {"predictions": [{"b64": base64.b64encode(tensor).decode()} for tensor in TENSORS]},
        {"predictions": [{"b64": base64.b64encode(text.encode()).decode()} for text in TEXTS]},
        {"predictions": [{"p": {"b64": base64.b64encode(tensor).decode()}} for tensor in TENSORS]},
        {"outputs": TEXTS},
        {"outputs": {"p": TEXTS}},
    ],
)
def test_responses_with_serialized_tensors(body):
    found = SerializedTensors().decode(json.dumps(body).encode(), count=2, name="p")
    assert list(found) == ["p"]
    np.testing.assert_array_equal(found["p"], EXPECTED)
    assert found["p"].dtype == "float32"


@pytest.mark.parametrize(
    "body",
    [
        '{"predictions": [[1.5, NaN], [Infinity, 2]]}',
        '{"predictions": [{"p": [1.5, NaN]}, {"p": [Infinity, 2]}]}',
        '{"predictions": [{"p": ["1.5", "NaN"]}, {"p": ["Infinity", "2"]}]}',
        '{"outputs": [[1.5, NaN], [Infinity, 2]]}',
        '{"outputs": {"p": [[1.5, NaN], [Infinity, 2]]}}',
        '{"predictions": {"p": [[1.5, NaN], [Infinity, 2]]}}',
    ],
)
@pytest.mark.parametrize("payload", [RawJson(), NdArrays()])
def test_responses_with_numbers(body, payload):
    found = payload.decode(body.encode(), count=2, name="p", dtypes={"p": "float32"})
    np.testing.assert_array_equal(found["p"], EXPECTED)
    assert found["p"].dtype == "float32"


def test_response_with_several_outputs_and_strings():
    body = (
        b'{"predictions": [{"class": "oak", "scores": [0.25, 1]}, {"class": "\xc3\xa9", "scores": [1, 0]}]}'
    )
    found = RawJson().decode(body)
    assert found["class"].tolist() == [b"oak", "é".encode()]
    assert found["scores"].tolist() == [[0.25, 1], [1, 0]]


@pytest.mark.parametrize("by_columns", [False, True])
def test_responses_like_tensorflow_serving(by_columns):
    outputs = {"p": np.array([0.5, np.nan]), "raw_bytes": np.array([b"\xff", b"a"], object)}
    found = json.loads(encode_json_response(outputs, by_columns=by_columns))
    p, raw = [0.5, np.nan], [{"b64": "/w=="}, {"b64": "YQ=="}]
    if by_columns:
        assert str(found) == str({"outputs": {"p": p, "raw_bytes": raw}})
    else:
        assert str(found) == str({"predictions": [{"p": p[i], "raw_bytes": raw[i]} for i in (0, 1)]})
    assert json.loads(encode_json_response({"p": np.array([1, 2])})) == {"predictions": [1, 2]}
    assert json.loads(encode_json_response({"p": np.array([1, 2])}, by_columns=True)) == {"outputs": [1, 2]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>502 Bad Gateway</html>", "not valid JSON: .*502 Bad Gateway"),
        (b"[1, 2]", "must be a JSON object"),
        (b'{"error": "no such model"}', "neither 'predictions' nor 'outputs': no such model"),
        (b'{"predictions": []}', "list that is not empty"),
        (b'{"predictions": {}}', "list that is not empty"),
        (b'{"predictions": {"b64": ""}}', "list that is not empty"),
        (b'{"predictions": [1, 2, 3]}', r"shape \(3,\); expected 2 instances"),
        (b'{"predictions": [{"p": 1}, {"q": 1}]}', "names of element 1 of 'predictions' differ"),
        (b'{"predictions": [{"p": 1}, 1]}', "element 1"),
        (b'{"predictions": [[1], [1, 2]]}', "lists of unequal lengths"),
        (b'{"predictions": [null, null]}', "not numbers"),
        (b'{"predictions": [["a"], ["b", "c"]]}', "lists of unequal lengths"),
        (b'{"predictions": ["a", 1]}', "Expected a string; got 1"),
        (b'{"predictions": [{"b64": "?"}, {"b64": "?"}]}', "is not valid base64"),
    ],
)
def test_invalid_responses(body, message):
    with pytest.raises(RecordError, match=message):
        RawJson().decode(body, count=2)


@pytest.mark.parametrize(
    ("strings", "message"),
    [
        ([TEXTS[0], "~"], "'output': Instance 1: .*is not valid base64"),
        ([TEXTS[0], "AAAA"], "Instance 1: "),
        (
            [TEXTS[0], base64.b64encode(encode_tensor([1])).decode()],
            "Instance 1 has dtype int64 and shape",
        ),
        ([1.5, 2.5], "expected a serialized tensor for each instance. Prepare the model"),
    ],
)
def test_invalid_serialized_tensors(strings, message):
    with pytest.raises(RecordError, match=message):
        SerializedTensors().decode(json.dumps({"predictions": strings}).encode())


LARGE = b'{"predictions": [%s]}' % b",".join([b"[1, 2]"] * 50_000)


def test_garbage_collector_is_paused_for_large_bodies():
    phases = []
    gc.callbacks.append(lambda phase, info: phases.append(phase))
    try:
        found = RawJson().decode(LARGE)["output"]
    finally:
        gc.callbacks.pop()
    assert found.shape == (50_000, 2)
    assert len(phases) < 20  # starts and stops; more than 100 without the pause


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collector_is_restored(enabled):
    def decode(body):
        try:
            return RawJson().decode(body)["output"].shape
        except RecordError as error:
            return str(error)[:30]

    assert gc.isenabled()
    try:
        if not enabled:
            gc.disable()
        assert decode(LARGE[:-1]) == "The response is not valid JSON"
        assert gc.isenabled() == enabled
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(decode, [LARGE, LARGE[:-1]] * 6))
        assert found == [(50_000, 2), "The response is not valid JSON"] * 6
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


# -- Requests, decoded by the server -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "dtypes", "message"),
    [
        (b"{}", {"x": "float32"}, "either 'instances'"),
        (b'{"instances": [1], "inputs": [1]}', {"x": "float32"}, "either 'instances'"),
        (b'{"instances": 1}', {"x": "float32"}, "list that is not empty"),
        (b'{"instances": [1], "signature_name": 1}', {"x": "float32"}, "'signature_name' must be a string"),
        (b'{"instances": [{"y": 1}]}', {"x": "float32"}, r"inputs 'x'; got 'y'"),
        (b'{"instances": [1]}', {"x": "float32", "y": "int8"}, "got no names"),
        (b'{"instances": [1.5]}', {"x": "int32"}, "cannot be represented as int32"),
        (b'{"instances": [300]}', {"x": "uint8"}, "cannot be represented as uint8"),
        (b'{"instances": [NaN]}', {"x": "uint8"}, "cannot be represented as uint8"),
        (b'{"instances": [18446744073709551616]}', {"x": "uint64"}, "represented as uint64|not numbers"),
        (b'{"instances": [true]}', {"x": "float32"}, "bool values; expected float32"),
        (b'{"instances": ["a"]}', {"x": "float32"}, "not numbers"),
        (b'{"instances": ["a"]}', {"x": "bool"}, "contains the string a; expected bool"),
        (b'{"instances": [1]}', {"x": "object"}, "expected strings"),
    ],
)
def test_invalid_requests(body, dtypes, message):
    with pytest.raises(RecordError, match=message):
        JsonRequest.parse(body).inputs(dtypes)


def test_requests_with_rows_and_columns():
    dtypes = {"x": "float32", "s": "object"}
    rows = (
        b'{"signature_name": "f", "instances": [{"x": [1, 2], "s": "a"}, {"x": [3, 4], "s": {"b64": "_w"}}]}'
    )
    columns = b'{"inputs": {"x": [[1, 2], [3, 4]], "s": ["a", {"b64": "/w=="}]}}'
    for body in (rows, columns):
        request = JsonRequest.parse(body)
        assert request.by_columns == (body is columns)
        assert request.signature_name == ("f" if body is rows else "")
        inputs = request.inputs(dtypes)
        assert inputs["x"].tolist() == [[1, 2], [3, 4]]
        assert inputs["s"].tolist() == [b"a", b"\xff"]
    large = JsonRequest.parse(b'{"instances": [18446744073709551615, 0, 9.0]}')
    assert large.inputs({"x": "uint64"})["x"].tolist() == [2**64 - 1, 0, 9]
    single = JsonRequest.parse(b'{"inputs": [[1, 2]]}')
    assert single.inputs({"x": "int8"})["x"].tolist() == [[1, 2]]


# -- Options -----------------------------------------------------------------------------------------


def test_format_names():
    assert get_args(PayloadFormat) == tuple(FORMATS)
    for name in FORMATS:
        assert create_payload(name) == create_payload(name.lower())
        assert create_payload(name).format == name
    assert create_payload("GRPC_SERIALIZED_TF_EXAMPLES") == GrpcExamples()
    assert create_payload("RAW_JSON", model_decodes=False, numbers_as_strings=False) == RawJson(
        numbers_as_strings=False
    )
    with pytest.raises(OptionError, match=r"must be one of SERIALIZED_TF_TENSORS, .*; got 'JSON'"):
        create_payload("JSON")


def test_invalid_batches():
    with pytest.raises(OptionError, match="the same number of instances"):
        SerializedTensors().encode({"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(OptionError, match="at least one array"):
        SerializedTensors().encode({})
    with pytest.raises(OptionError, match="does not support complex numbers"):
        RawJson().encode({"a": np.zeros(2, "complex64")})
    with pytest.raises(OptionError, match="datetime64"):
        GrpcTensors().encode({"a": np.zeros(2, "M8[s]")})


def test_largest_tile_within_earth_engine_limit():
    """The sides of tiles with six float32 bands in 1,500,000 bytes."""

    def side(payload):
        fitting = [
            n
            for n in range(1, 400)
            if payload.min_size({f"B{i}": ("float32", (n, n, 1)) for i in range(6)}) <= 1_500_000
        ]
        return fitting[-1]

    assert side(GrpcTensors()) == 249
    assert side(SerializedTensors()) == 216
    assert side(GrpcSerializedTensors(model_decodes=False)) == 249


# -- Golden files ------------------------------------------------------------------------------------

GOLDEN_BATCH = {
    "B4": np.array([[0.5, 100, -2.25], [np.nan, np.inf, -np.inf]], "float32").reshape(2, 1, 3, 1),
    "landcover": np.array([[1, 0, 255], [200, 7, 128]], "uint8").reshape(2, 1, 3, 1),
}
GOLDEN_PAYLOADS = {
    "serialized_tf_tensors.json": SerializedTensors(),
    "serialized_tf_tensors-b64.json": SerializedTensors(model_decodes=False),
    "raw_json.json": RawJson(),
    "raw_json-numbers.json": RawJson(numbers_as_strings=False),
    "nd_arrays.json": NdArrays(),
    "grpc_tf_tensors.pb": GrpcTensors(),
    "grpc_serialized_tf_tensors.pb": GrpcSerializedTensors(),
    "grpc_serialized_tf_tensors-raw.pb": GrpcSerializedTensors(model_decodes=False),
    "grpc_tf_examples.pb": GrpcExamples(),
}


def golden(payload):
    """Encode `GOLDEN_BATCH` with TensorFlow, protobuf and the json module."""

    def tensor(array):
        return tf.io.serialize_tensor(array).numpy()

    def encode(value):
        if isinstance(value, list):
            return [encode(item) for item in value]
        return json.dumps(value) if payload.numbers_as_strings else value

    if payload.format == "GRPC_TF_TENSORS":
        tensors = {name: tensor(array) for name, array in GOLDEN_BATCH.items()}
    elif payload.format == "GRPC_TF_EXAMPLES":
        examples = []
        for index in range(2):
            example = tf.train.Example()
            for name, array in GOLDEN_BATCH.items():
                example.features.feature[name].float_list.value.extend(array[index].ravel().tolist())
            examples.append(example.SerializeToString(deterministic=True))
        tensors = {"input": tf.make_tensor_proto(examples).SerializeToString()}
    elif "SERIALIZED" in payload.format:
        rows = []
        for index in range(2):
            strings = {name: tensor(array[index]) for name, array in GOLDEN_BATCH.items()}
            if payload.model_decodes:
                strings = {name: base64.urlsafe_b64encode(string) for name, string in strings.items()}
            elif not payload.is_grpc:
                strings = {
                    name: {"b64": base64.b64encode(string).decode()} for name, string in strings.items()
                }
            rows.append(strings)
        if payload.is_grpc:
            tensors = {
                name: tf.make_tensor_proto([row[name] for row in rows]).SerializeToString()
                for name in GOLDEN_BATCH
            }
    elif payload.format == "RAW_JSON":
        rows = [
            {name: encode(array[index].tolist()) for name, array in GOLDEN_BATCH.items()}
            for index in range(2)
        ]
    else:
        stack = np.concatenate([array.astype("float32") for array in GOLDEN_BATCH.values()], -1)
        rows = stack.transpose(0, 3, 1, 2).tolist()
    if payload.is_grpc:
        request = PredictRequest()
        for name, data in tensors.items():
            request.inputs[name].ParseFromString(data)
        return request.SerializeToString(deterministic=True)
    return json.dumps({"instances": rows}, separators=(",", ":"), default=bytes.decode).encode()


@pytest.mark.parametrize("name", GOLDEN_PAYLOADS)
def test_golden_payloads(name):
    """Compare with files written by `golden`, which does not use the package."""
    payload = GOLDEN_PAYLOADS[name]
    data = (GOLDEN / name).read_bytes()
    assert data == golden(payload)
    assert payload.encode(GOLDEN_BATCH) == data
    assert payload.min_size(item_specs(GOLDEN_BATCH), 2) <= len(data)
