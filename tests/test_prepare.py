"""`prepare_model`, compared with `earthengine model prepare`, and its errors for invalid models."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from unittest import mock

import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

import fsspec
import keras
import numpy as np
import tensorflow as tf

import xee_tf
from xee_tf.errors import DestinationExistsError, MissingModelError, ModelError, OptionError
from xee_tf.models.saved_model_files import is_prepared, read_meta_graph
from xee_tf.tensors import decode_tensor, encode_tensors
from xee_tf_cli import main

v1 = tf.compat.v1


class Double(tf.Module):
    def __init__(self):
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.float32, name="array")])
    def __call__(self, array):
        return {"double": self.factor * array}


class Difference(tf.Module):
    bands = tuple(
        tf.TensorSpec([None, 8, 8, 1], dtype, name=f"B{i}")
        for i, dtype in enumerate(("float32", "uint16"), 4)
    )

    @tf.function(input_signature=bands)
    def __call__(self, B4, B5):  # noqa: N803
        b5 = tf.cast(B5, tf.float32)
        return {"nd": (B4 - b5) / (B4 + b5), "sum": tf.cast(B4, tf.float64) + tf.cast(b5, tf.float64)}


class Types(tf.Module):
    """Scalars and strings, as in tables, and rare dtypes."""

    columns = (
        tf.TensorSpec([None], tf.string, name="name"),
        tf.TensorSpec([None], tf.bool, name="flag"),
        tf.TensorSpec([None, 3], tf.bfloat16, name="vector"),
    )

    @tf.function(input_signature=columns)
    def __call__(self, name, flag, vector):
        wide = tf.cast(vector, tf.float32)
        return {
            "upper": tf.strings.upper(name),
            "not": ~flag,
            "complex": tf.complex(wide, -wide),
            "vector": vector,
        }


class Noise(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def __call__(self, x):
        return {"noisy": x + tf.cast(1e6 * tf.timestamp() % 1000, tf.float32)}


class Total(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def __call__(self, x):
        return {"total": tf.reduce_sum(x)}


class Square(tf.Module):
    """Accepts only images of 7 pixels, which the signature does not specify."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": tf.ensure_shape(x, [None, 7])}


def save_tf1(folder):
    """Save a TensorFlow 1 model with reference variables."""
    with tf.Graph().as_default(), v1.Session() as session:
        pixels = v1.placeholder(tf.float32, [None, None, None, 3], name="pixels")
        kernel = v1.get_variable("kernel", [1, 1, 3, 2], use_resource=False)
        relu = tf.nn.relu(tf.nn.conv2d(pixels, kernel, 1, "SAME"), name="relu")
        v1.global_variables_initializer().run()
        builder = v1.saved_model.Builder(str(folder))
        inputs, outputs = (v1.saved_model.build_tensor_info(tensor) for tensor in (pixels, 2 * relu))
        signature = v1.saved_model.build_signature_def({"pixels": inputs}, {"twice": outputs})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


def keras_model():
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Input((None, None, 6), name="array"),
        keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(2, 1, activation="softmax"),
    ]
    return keras.Sequential(layers)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tf.saved_model.save(keras_model(), str(folder / "saved"))
    keras_model().export(folder / "exported", verbose=False)
    for name, module in {
        "double": Double(),
        "difference": Difference(),
        "types": Types(),
        "noise": Noise(),
        "total": Total(),
        "square": Square(),
    }.items():
        tf.saved_model.save(module, str(folder / name))
    save_tf1(folder / "tf1")
    save_tf1(folder / "tuned")  # also holds the variables of the first model
    (folder / "tuned" / "weights").mkdir()
    for path in (folder / "tf1" / "variables").iterdir():
        shutil.copy(path, folder / "tuned" / "weights" / path.name.replace("variables", "final"))
    return folder


# Options of both tools for each model.
PREPARED = {
    "exported": {
        "input": '{"serving_default_array:0": "B"}',
        "output": '{"StatefulPartitionedCall_1:0": "p:0"}',
    },
    "double": {"input": "serving_default_array:0", "output": "StatefulPartitionedCall:0"},
    "difference": {
        "input": '{"serving_default_B4:0": "B4", "serving_default_B5:0": "0_B5 é"}',
        "output": '{"PartitionedCall:0": "n d", "PartitionedCall:1": "sum"}',
    },
    "types": {
        "input": '{"serving_default_name:0": "class", "serving_default_flag:0": "1st", '
        '"serving_default_vector:0": "_v"}',
        "output": '{"PartitionedCall:0": "complex", "PartitionedCall:1": "not", '
        '"PartitionedCall:2": "upper", "PartitionedCall:3": "vector"}',
    },
    "tf1": {"input": "pixels:0", "output": '{"mul:0": "twice", "relu:0": "once"}'},
    "tuned": {"input": "pixels:0", "output": "relu:0", "variables": "/weights/final"},
    "saved": {"input": "serving_default_inputs:0", "output": "StatefulPartitionedCall:0"},
}

EARTH_ENGINE = """
import argparse, json, sys
from ee.cli.commands import PrepareModelCommand, tf
parser = argparse.ArgumentParser()
command = PrepareModelCommand(parser)
for arguments in json.loads(sys.argv[1]):
    command.run(parser.parse_args(arguments), None)
    tf.reset_default_graph()  # the command does not reset its graph
print(json.dumps([action.option_strings[0] for action in parser._actions]))
"""


@pytest.fixture(scope="module")
def earth_engine(models):
    """Prepare the models with Earth Engine's command, in a separate process as it disables TensorFlow 2."""
    folder = models / "earth_engine"
    folder.mkdir()
    runs = []
    for name, options in PREPARED.items():
        flags = {"source_dir": models / name, "dest_dir": folder / name, **options}
        runs.append([f"--{flag}={value}" for flag, value in flags.items()])
    run = subprocess.run(
        [sys.executable, "-c", EARTH_ENGINE, json.dumps(runs)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Success") == len(runs)
    (folder / "flags.json").write_text(run.stdout.splitlines()[-1])
    return folder


@pytest.fixture(scope="module")
def prepared(models):
    """Prepare the models with xee_tf."""
    folder = models / "prepared"
    for name, options in PREPARED.items():
        xee_tf.prepare_model(models / name, folder / name, **options)
    return folder


def signature_of(folder):
    """Return the names, dtypes and shapes of the only signature, and its method."""
    graph = read_meta_graph(str(folder))
    signatures = {name: s for name, s in graph.signature_def.items() if not name.startswith("__saved_model")}
    assert list(signatures) == ["serving_default"]
    sides = signatures["serving_default"].inputs, signatures["serving_default"].outputs
    described = [
        {key: (info.dtype, [dim.size for dim in info.tensor_shape.dim]) for key, info in side.items()}
        for side in sides
    ]
    return [*described, signatures["serving_default"].method_name]


def run_in_session(folder, feeds):
    """Run a model in a session, as model servers do."""
    with tf.Graph().as_default(), v1.Session() as session:
        graph = v1.saved_model.load(session, ["serve"], str(folder))
        signature = graph.signature_def["serving_default"]
        return session.run(
            {key: info.name for key, info in signature.outputs.items()},
            {signature.inputs[key].name: value for key, value in feeds.items()},
        )


def encode(batch):
    return np.array([base64.urlsafe_b64encode(tensor) for tensor in encode_tensors(batch)], object)


def decode(strings):
    return np.stack([decode_tensor(base64.urlsafe_b64decode(text + b"==")) for text in strings])


def feeds_of(name, batch):
    """Create inputs of each model, by the names in the prepared model."""
    rng = np.random.default_rng(batch)
    if name in ("exported", "saved"):
        key = "B" if name == "exported" else "serving_default_inputs"
        return {key: rng.random((batch, 5, 9, 6), "float32")}
    if name == "double":
        values = rng.random((batch, 4, 3, 1), "float32")
        values[0, 0, :3, 0] = np.nan, np.inf, -np.inf
        return {"serving_default_array": values}
    if name == "difference":
        b5 = rng.integers(0, 60000, (batch, 8, 8, 1)).astype("uint16")
        return {"B4": rng.random((batch, 8, 8, 1), "float32"), "0_B5 é": b5}
    if name == "types":
        names = np.array([b"forest", b"", "été".encode()][:batch], object)
        vectors = rng.random((batch, 3)).astype(tf.bfloat16.as_numpy_dtype)
        return {"class": names, "1st": rng.random(batch) < 0.5, "_v": vectors}
    return {"pixels": rng.normal(size=(batch, 4, 4, 3)).astype("float32")}


WORKING = [name for name in PREPARED if name != "saved"]


@pytest.mark.parametrize("name", WORKING)
def test_result_equals_that_of_earth_engine(name, earth_engine, prepared):
    assert signature_of(prepared / name) == signature_of(earth_engine / name)
    assert signature_of(prepared / name)[2] == "tensorflow/serving/predict"
    for side in signature_of(prepared / name)[:2]:
        assert set(map(str, side.values())) == {str((tf.string.as_datatype_enum, [-1]))}
    for batch in (1, 3):
        feeds = {key: encode(values) for key, values in feeds_of(name, batch).items()}
        expected = run_in_session(earth_engine / name, feeds)
        found = run_in_session(prepared / name, feeds)
        assert found.keys() == expected.keys()
        for key, strings in expected.items():
            assert found[key].tolist() == strings.tolist()


@pytest.mark.parametrize("name", ["exported", "double", "difference", "types"])
def test_outputs_equal_those_of_the_original(name, models, prepared):
    """The outputs in TensorFlow 2, decoded with this package, equal those of the original model."""
    feeds = feeds_of(name, 3)
    wrapped = tf.saved_model.load(str(prepared / name))
    found = wrapped.signatures["serving_default"](
        **{key: tf.constant(encode(values)) for key, values in feeds.items()}
    )
    original = tf.saved_model.load(str(models / name))
    arguments = {"B": "array", "serving_default_array": "array", "0_B5 é": "B5"}
    arguments |= {"class": "name", "1st": "flag", "_v": "vector"}
    expected = original.signatures["serving_default"](
        **{arguments.get(key, key): tf.constant(values) for key, values in feeds.items()}
    )
    assert len(found) == len(expected)
    for strings, values in zip(
        (found[key] for key in sorted(found)), (expected[key] for key in sorted(expected)), strict=True
    ):
        output = decode(strings.numpy())
        assert output.dtype == values.numpy().dtype
        assert output.shape == values.shape
        if output.dtype != object:
            np.testing.assert_allclose(
                output.astype("complex128"), values.numpy().astype("complex128"), rtol=1e-6
            )
        else:
            assert output.tolist() == values.numpy().tolist()


def test_keras_model_that_earth_engine_prepares_without_variables(models, earth_engine, prepared):
    pixels = feeds_of("saved", 2)["serving_default_inputs"]
    with pytest.raises(tf.errors.FailedPreconditionError, match="Could not find variable"):
        run_in_session(earth_engine / "saved", {"serving_default_inputs": encode(pixels)})
    [strings] = run_in_session(prepared / "saved", {"serving_default_inputs": encode(pixels)}).values()
    np.testing.assert_allclose(decode(strings), keras_model()(pixels), rtol=1e-5)
    assert signature_of(prepared / "saved") == signature_of(earth_engine / "saved")


def test_base64_must_be_url_safe_and_padding_is_optional(prepared):
    values = np.full((1, 2, 2, 1), np.uint32(0x3FFFFFFF), "uint32").view("float32")
    [text] = encode(values).tolist()
    feeds = {"serving_default_array": np.array([text.rstrip(b"=")], object)}
    np.testing.assert_array_equal(
        decode(run_in_session(prepared / "double", feeds)["StatefulPartitionedCall"]), 2 * values
    )
    standard = base64.b64encode(base64.urlsafe_b64decode(text))
    assert b"/" in standard
    with pytest.raises(tf.errors.InvalidArgumentError):
        run_in_session(prepared / "double", {"serving_default_array": np.array([standard], object)})


def test_variables_in_another_folder(models, prepared, tmp_path, monkeypatch):
    """With the variables of another model, the outputs are equal; standard variables are not required."""
    feeds = {"pixels": encode(feeds_of("tf1", 2)["pixels"])}
    expected = run_in_session(prepared / "tf1", feeds)["once"].tolist()
    assert run_in_session(prepared / "tuned", feeds)["relu"].tolist() == expected
    xee_tf.prepare_model(models / "tuned", tmp_path / "usual", output="relu:0", input="pixels:0")
    assert run_in_session(tmp_path / "usual", feeds)["relu"].tolist() != expected

    for name in ("double", "tuned"):
        shutil.copytree(models / name, tmp_path / name)
        (tmp_path / name / "variables").rename(tmp_path / name / "elsewhere")
        with pytest.raises(ModelError, match="cannot load the model"):
            xee_tf.prepare_model(tmp_path / name, tmp_path / "out")
        xee_tf.prepare_model(tmp_path / name, tmp_path / f"{name}_out", variables="elsewhere/variables")

    monkeypatch.setattr("os.symlink", mock.Mock(side_effect=OSError("as on Windows")))
    xee_tf.prepare_model(tmp_path / "double", tmp_path / "copied", variables="elsewhere/variables")


# -- Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "inputs", "outputs"),
    [
        ({}, {"array"}, {"output_0"}),
        ({"input": "array"}, {"array"}, {"output_0"}),
        ({"input": {"array": "B4:0"}, "output": ["output_0"]}, {"B4"}, {"output_0"}),
        ({"input": "serve_array:0", "output": '{"StatefulPartitionedCall": "p"}'}, {"serve_array"}, {"p"}),
        ({"output": "StatefulPartitionedCall_1:0"}, {"array"}, {"StatefulPartitionedCall_1"}),
    ],
)
def test_names_of_arguments_and_nodes(options, inputs, outputs, models, tmp_path):
    result = xee_tf.prepare_model(models / "exported", tmp_path / "out", verify=False, **options)
    signature = signature_of(tmp_path / "out")
    assert (set(signature[0]), set(signature[1])) == (inputs, outputs)
    [name] = inputs
    assert result.inputs == (f"{name} (float32, ? × ? × ? × 6)",)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "exported",
            {"input": "nope:0"},
            r"has the inputs 'nope:0'.*Available: .*array \(serving_default_array:0\)",
        ),
        ("exported", {"input": "array", "output": "nope"}, "the inputs 'array' and the outputs 'nope'"),
        ("exported", {"input": "serve_array:0", "output": "StatefulPartitionedCall_1:0"}, "No signature"),
        ("difference", {"input": "B4"}, "'serving_default' also requires the input 'B5'"),
        ("difference", {"input": {"B4": "B", "B5": "B"}}, "maps more than one node to the name 'B'"),
        ("difference", {"input": '["B4", "B5"]'}, "must be a JSON object of names"),
        ("difference", {"input": {"B4": 4}}, "must map names to names"),
        ("difference", {"input": "B4,,B5"}, "must map names to names"),
        (
            "tf1",
            {"input": "pixels:0", "output": "nope:0"},
            r"Node 'nope:0' not found in the graph.*pixels \(pixels:0\)",
        ),
        ("tf1", {"tag": "train"}, "no graph with only the tag 'train'; available: serve"),
        ("tuned", {"variables": "/weights/wrong"}, "no file wrong.index in"),
        ("total", {}, "'total' has no batch dimension"),
        ("noise", {}, "differs from the original.*verify=False"),
        ("square", {}, r"none of the random inputs.*first error was for shape \(2, 32\)"),
    ],
)
def test_errors_leave_no_files(name, options, message, models, tmp_path):
    with pytest.raises((OptionError, ModelError), match=message):
        xee_tf.prepare_model(models / name, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_model_that_cannot_be_verified(models, tmp_path):
    xee_tf.prepare_model(models / "square", tmp_path / "out", verify=False)
    pixels = np.arange(14, dtype="float32").reshape(2, 7)
    np.testing.assert_array_equal(
        decode(run_in_session(tmp_path / "out", {"x": encode(pixels)})["y"]), pixels
    )


# -- Source and destination ---------------------------------------------------------------------------


def test_existing_destination(models, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(DestinationExistsError, match="out exists"):
        xee_tf.prepare_model(models / "double", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_prepared_model_as_source(models, prepared, earth_engine, tmp_path):
    for folder in (prepared / "exported", earth_engine / "exported", prepared / "tf1", earth_engine / "tf1"):
        assert is_prepared(read_meta_graph(str(folder)))
        with pytest.raises(ModelError, match="is already prepared"):
            xee_tf.prepare_model(folder, tmp_path / "out")
    assert not is_prepared(read_meta_graph(str(models / "types")))


def test_object_stores(models):
    store = fsspec.filesystem("memory")
    store.put(str(models / "double"), "/bucket/double", recursive=True)
    result = xee_tf.prepare_model("memory://bucket/double", "memory://bucket/prepared")
    assert result.path == "memory://bucket/prepared"
    assert store.exists("/bucket/prepared/saved_model.pb")
    assert store.exists("/bucket/prepared/variables/variables.index")
    with pytest.raises(DestinationExistsError):
        xee_tf.prepare_model("memory://bucket/double", "memory://bucket/prepared")
    store.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        ([], "none", "none: the path does not exist"),
        (
            ["model.keras"],
            "model.keras",
            r"a Keras file. Export it with keras.models.load_model\('model.keras'\).export",
        ),
        (["frozen.pb"], "frozen.pb", "it is a frozen graph. Export a Keras model with model.export"),
        (["m/saved_model.pb"], "m/saved_model.pb", "a file of a SavedModel; use the folder that contains it"),
        (
            ["m/1/saved_model.pb", "m/2/saved_model.pb"],
            "m",
            "the versions 1, 2; use one, such as .*m/2",
        ),
        (["m/best/saved_model.pb"], "m", "the SavedModel best; use one"),
        (["m/checkpoint", "m/ckpt-1.index"], "m", r"contains a checkpoint \(checkpoint, ckpt-1.index\)"),
        (["m/config.json"], "m", "it contains config.json. Export a Keras model"),
        (["m/x/y"], "m/x", "it contains y"),
    ],
)
def test_source_that_is_not_a_saved_model(files, name, message, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(ModelError, match=message) as caught:
        xee_tf.prepare_model(tmp_path / name, tmp_path / "out")
    assert isinstance(caught.value, MissingModelError) == (not files)


def test_corrupt_graph(models, tmp_path):
    shutil.copytree(models / "double", tmp_path / "double")
    (tmp_path / "double" / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match=r"saved_model\.pb is damaged"):
        xee_tf.prepare_model(tmp_path / "double", tmp_path / "out")


# -- The command --------------------------------------------------------------------------------------


def test_command_has_the_flags_of_earth_engine(models, earth_engine, tmp_path, capsys):
    flags = json.loads((earth_engine / "flags.json").read_text())
    assert main(["model", "prepare", "--help"]) == 0
    help_text = capsys.readouterr().out
    assert set(flags) == {"-h", "--source_dir", "--dest_dir", "--input", "--output", "--tag", "--variables"}
    assert all(flag.replace("_", "-") in help_text for flag in flags if flag != "-h")

    options = PREPARED["tuned"] | {
        "source_dir": models / "tuned",
        "dest_dir": tmp_path / "out",
        "tag": "serve",
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    assert main(["model", "prepare", *arguments]) == 0
    assert capsys.readouterr().out == (
        f"Wrote {tmp_path / 'out'}\n  inputs   pixels (float32, ? × ? × ? × 3)\n"
        "  outputs  relu (float32, ? × ? × ? × 2)\n"
    )
    assert signature_of(tmp_path / "out") == signature_of(earth_engine / "tuned")
    assert main(["model", "prepare", *arguments]) == 1
    assert "out exists: choose another folder" in capsys.readouterr().err
    arguments = [f"--source-dir={models / 'noise'}", f"--dest-dir={tmp_path / 'noise'}"]
    assert main(["model", "prepare", *arguments]) == 1
    assert "pass --no-verify" in capsys.readouterr().err
    assert main(["model", "prepare", *arguments, "--no-verify"]) == 0
