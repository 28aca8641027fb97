"""Tests that every connector must pass, as a base class; and a small model in numpy, TensorFlow and Keras.

To test a connector, subclass `ConnectorConformance` with fixtures that create it. The inputs of the model
are ``a`` of shape (n, h, w, 1) and ``b`` of shape (n, h, w, 2), both float32. Its outputs have shape
(n, h, w, 1): ``box`` is the sum of the 3 x 3 pixels of ``a`` around each pixel (zeros outside), float32, and
``count`` is the number of positive values of ``b``, int32.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from xee_tf.connector import Connection, Connector, connected
from xee_tf.errors import ModelError, PredictionError


def in_numpy(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model in numpy."""
    a = batch["a"][..., 0]
    _, height, width = a.shape
    padded = np.pad(a, ((0, 0), (1, 1), (1, 1)))
    shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    box = np.sum(shifted, axis=0)
    count = (batch["b"] > 0).sum(-1, dtype="int32")
    return {"box": box[..., None], "count": count[..., None]}


def in_tensorflow(path: Path) -> Path:
    """Save the model as a SavedModel, from a tf.Module."""
    tf = pytest.importorskip("tensorflow")

    module = tf.Module()
    module.kernel = tf.Variable(tf.ones((3, 3, 1, 1)))

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 1), tf.float32, "a"),
            tf.TensorSpec((None, None, None, 2), tf.float32, "b"),
        ]
    )
    def predict(a: Any, b: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(a)[:3], tf.shape(b)[:3])]):
            box = tf.nn.conv2d(a, module.kernel, 1, "SAME")
        count = tf.reduce_sum(tf.cast(b > 0, tf.int32), -1, keepdims=True)
        return {"box": box, "count": count}

    module.predict = predict
    tf.saved_model.save(module, path, signatures=predict)
    return path


def in_keras() -> Any:
    """The model in Keras, in memory."""
    keras = pytest.importorskip("keras")

    a = keras.Input((None, None, 1), name="a")
    b = keras.Input((None, None, 2), name="b")
    box = keras.layers.Conv2D(1, 3, padding="same", use_bias=False, kernel_initializer="ones")(a)
    count = keras.ops.sum(keras.ops.cast(b > 0, "int32"), -1, keepdims=True)
    return keras.Model({"a": a, "b": b}, {"box": box, "count": count}, name="known")


def batch_of(size: int, seed: int = 0, height: int = 7, width: int = 5) -> dict[str, np.ndarray]:
    """Create a batch of whole numbers, whose sums are exact in any order."""
    rng = np.random.default_rng(seed)
    return {
        "a": rng.integers(-9, 9, (size, height, width, 1)).astype("float32"),
        "b": rng.integers(-2, 3, (size, height, width, 2)).astype("float32"),
    }


def assert_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


class ConnectorConformance:
    """Base class for tests of a connector; subclasses override the fixtures `connector` and `missing`."""

    secrets: tuple[str, ...] = ()
    """Texts that must not be shown or pickled."""

    @pytest.fixture
    def connector(self) -> Connector:
        """A connector to the model of this module."""
        raise NotImplementedError

    @pytest.fixture
    def missing(self) -> Connector:
        """A connector to a model that does not exist; its text ends with the name of the model."""
        raise NotImplementedError

    @pytest.fixture
    def connection(self, connector: Connector) -> Connection:
        return connected(connector)

    def test_pickle(self, connector: Connector) -> None:
        before = pickle.dumps(connector)
        copy = pickle.loads(before)
        assert copy == connector
        assert hash(copy) == hash(connector)
        connected(connector).predict(batch_of(1))
        assert pickle.dumps(connector) == before
        assert connected(copy) is connected(connector)

    def test_text_and_repr(self, connector: Connector) -> None:
        for text in (str(connector), repr(connector)):
            assert 0 < len(text) < 500
            assert "0x" not in text
        for secret in self.secrets:
            assert secret not in str(connector) + repr(connector)
            assert secret.encode() not in pickle.dumps(connector)

    def test_signature(self, connector: Connector, connection: Connection) -> None:
        signature = connector.signature()
        assert signature == connection.signature
        expected = {
            "inputs": {"a": ("float32", 1), "b": ("float32", 2)},
            "outputs": {"box": ("float32", 1), "count": ("int32", 1)},
        }
        for which, tensors in expected.items():
            found = getattr(signature, which)
            if found is not None:
                assert set(found) == set(tensors)
                for name, (dtype, channels) in tensors.items():
                    assert found[name].dtype in (None, np.dtype(dtype))
                    assert found[name].shape in (None, (None, None, None, channels))

    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_batch_sizes(self, connection: Connection, size: int) -> None:
        whole = batch_of(10)
        parts = [
            connection.predict({name: values[start : start + size] for name, values in whole.items()})
            for start in range(0, 10, size)
        ]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert_same(joined, in_numpy(whole))

    def test_memory_layout(self, connection: Connection) -> None:
        batch = batch_of(4)
        reversed_batch = {name: np.asfortranarray(values[::-1]) for name, values in batch.items()}
        for values in reversed_batch.values():
            values.flags.writeable = False
        assert_same(connection.predict(reversed_batch), in_numpy(reversed_batch))

    def test_nan_and_infinity(self, connection: Connection) -> None:
        batch = batch_of(3)
        batch["a"][0, 1, 1] = np.nan
        batch["a"][1, 5, 3] = np.inf
        batch["a"][2, 0, 0] = -np.inf
        batch["b"][0, 0, 0] = [np.nan, np.inf]
        found = connection.predict(batch)
        assert_same(found, in_numpy(batch))
        assert np.isnan(found["box"]).sum() == 9

    def test_threads(self, connection: Connection) -> None:
        batches = [batch_of(2, seed, 3 + seed % 4, 4 + seed % 3) for seed in range(24)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(connection.predict, batches))
        for outputs, batch in zip(found, batches, strict=True):
            assert_same(outputs, in_numpy(batch))

    def test_opened_once(self, connector: Connector) -> None:
        barrier = Barrier(8)

        def connect(_: int) -> Connection:
            barrier.wait()
            return connected(connector)

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(connect, range(8)))
        assert len({id(connection) for connection in found}) == 1

    def test_missing_model(self, missing: Connector) -> None:
        for _ in range(2):
            with pytest.raises((ModelError, PredictionError)) as caught:
                connected(missing).predict(batch_of(1))
            assert str(missing).split()[-1].strip("'") in str(caught.value)

    @pytest.mark.parametrize(
        ("batch", "named"),
        [
            ({"a": np.zeros((1, 3, 3, 1), "float32")}, "b"),
            (batch_of(1) | {"c": np.zeros((1, 3, 3, 1), "float32")}, "c"),
        ],
        ids=["missing", "unknown"],
    )
    def test_wrong_inputs(self, connection: Connection, batch: dict[str, np.ndarray], named: str) -> None:
        with pytest.raises((ModelError, PredictionError), match=f"'{named}'"):
            connection.predict(batch)
        assert_same(connection.predict(batch_of(2)), in_numpy(batch_of(2)))

    def test_usable_after_an_error(self, connection: Connection) -> None:
        batch = batch_of(2) | {"a": batch_of(2)["b"]}
        with pytest.raises(PredictionError) as caught:
            connection.predict(batch)
        assert 10 < len(str(caught.value)) < 1500
        assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
        assert_same(connection.predict(batch_of(2)), in_numpy(batch_of(2)))

    def test_close_twice(self, connector: Connector) -> None:
        connection = connector.open()
        connection.predict(batch_of(1))
        connection.close()
        connection.close()
