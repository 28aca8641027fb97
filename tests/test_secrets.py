"""Secrets in storage options: where they are, and where they must not be."""

from __future__ import annotations

import gzip
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask import threaded
from distributed import Client, LocalCluster

import xee_tf
from tests.counting_proxy import Error
from tests.optional import optional
from tests.rasters import random_band, raster
from xee_tf.errors import DestinationError, StorageError
from xee_tf.storage import Location
from xee_tf.storage.credentials import mask_secrets

keras = optional("keras")

# Keras converts its variables to numpy arrays in a way that numpy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SECRET = "zV9-this-must-not-be-shown-Q4t"
PATCHES = {"patch_dimensions": 16}
MODEL: Any = {"input_tile_size": 16, "output_bands": ["p"]}

Act = Callable[[str, Mapping[str, Any], Path], Any]


def scene() -> xr.Dataset:
    bands = {"a": random_band((32, 32), seed=1), "b": random_band((32, 32), seed=2)}
    return raster(bands).chunk(y=16, x=16)


def summed(**options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_function(lambda tiles: tiles.sum(-1), input_tile_size=16, **options)


def export(url: str, options: Mapping[str, Any], folder: Path) -> Any:
    return scene().tfexport(f"{url}/scene", storage_options=options, if_exists="resume", **PATCHES)


def table(url: str, options: Mapping[str, Any], folder: Path) -> Any:
    frame = pd.DataFrame({"x": [1.0, 2.0], "name": ["oak", "fir"]})
    return xee_tf.export_table(frame, f"{url}/table", storage_options=options, if_exists="resume")


def sample(url: str, options: Mapping[str, Any], folder: Path) -> Any:
    return scene().tfexport.table(None, f"{url}/sample", n=9, storage_options=options)


def read(url: str, options: Mapping[str, Any], folder: Path) -> Any:
    opened = xee_tf.open_image(f"{url}/scene", storage_options=options, chunks={"y": 16, "x": 16})
    opened.load()
    again = xr.open_dataset(f"{url}/scene-mixer.json", engine="tfrecord", storage_options=options)
    hidden = (again, again.encoding, again["a"].encoding, again.attrs)
    return opened, *hidden, xee_tf.verify(f"{url}/scene", storage_options=options)


def read_table(url: str, options: Mapping[str, Any], folder: Path) -> Any:
    return xee_tf.open_table(f"{url}/table.tfrecord.gz", storage_options=options)


def to_zarr(url: str, options: Mapping[str, Any], folder: Path) -> Any:
    model = summed(output_bands=["p"])
    return xee_tf.predict_to_zarr(model, scene(), f"{url}/p.zarr", storage_options=options)


def to_cog(url: str, options: Mapping[str, Any], folder: Path) -> Any:
    return xee_tf.predict_to_cog(summed(output_bands=["p"]), scene(), f"{url}/p.tif", storage_options=options)


def upload(url: str, options: Mapping[str, Any], folder: Path) -> Any:
    with xee_tf.PredictionWriter(
        f"{url}/q-00000.tfrecord.gz", f"{url}/scene-mixer.json", bands=["a"], storage_options=options
    ) as writer:
        for _ in range(4):
            writer.write(np.zeros((1, 16, 16, 1), "float32"))
    xee_tf.upload_image(
        f"{url}/q-00000.tfrecord.gz", f"{url}/scene-mixer.json", f"{url}/q.zarr", storage_options=options
    )
    return writer


def keras_model(url: str, options: Mapping[str, Any], folder: Path) -> Any:
    file = folder / "m.keras"
    keras.Sequential([keras.Input((16, 16, 2)), keras.layers.Dense(1)]).save(file)
    Location.of(f"{url}/m.keras", options).put_file(file)
    model = xee_tf.Model.from_keras(
        f"{url}/m.keras", storage_options=options, input_tile_size=16, output_bands=["p"]
    )
    xee_tf.predict_to_zarr(model, scene(), folder / "m.zarr")
    return model, model.predict_image(scene(), merge=False).compute()


# In this order: some read what others write.
ACTS: list[Act] = [export, table, sample, read, read_table, to_zarr, to_cog, upload, keras_model]


class Graphs:
    """A scheduler of Dask that keeps the graphs that it computes."""

    def __init__(self) -> None:
        self.tasks: dict[Any, Any] = {}

    def get(self, graph: Any, keys: Any, **options: Any) -> Any:
        graph = graph.__dask_graph__() if hasattr(graph, "__dask_graph__") else graph
        self.tasks |= dict(graph)
        return threaded.get(graph, keys, **options)


@contextmanager
def recorded() -> Iterator[Graphs]:
    graphs = Graphs()
    with dask.config.set(scheduler=graphs.get):
        yield graphs


def contents(data: bytes) -> bytes:
    """Return bytes and, if they are compressed, what they hold."""
    try:
        return data + gzip.decompress(data)
    except (OSError, EOFError):
        return data


def shown(value: Any) -> Iterator[str]:
    """Yield all texts that show a value."""
    for each in value if isinstance(value, tuple) else (value,):
        yield from (str(each), repr(each))
        if hasattr(each, "_repr_html_"):
            yield each._repr_html_()


@pytest.mark.parametrize("where", ["options", "environment"])
def test_secrets(
    where: str,
    bucket: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Secrets are nowhere but in the values of tasks, and only if they are in the storage options."""
    caplog.set_level(logging.INFO)
    options = {**bucket.options, "secret": SECRET}
    if where == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", options.pop("key"))
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options.pop("secret"))
    held = set()
    for act in ACTS:
        with recorded() as graphs:
            result = act(bucket.url, options, tmp_path)
        assert SECRET not in "".join(shown(result)), act
        for key, task in graphs.tasks.items():
            assert SECRET not in f"{key!r} {task!r} {task}", act
            if SECRET.encode() in cloudpickle.dumps(task):
                held.add(act)
    assert held == (set(ACTS) - {read_table, to_cog} if where == "options" else set())
    for key, data in bucket.read().items():
        assert SECRET.encode() not in contents(data), key
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in contents(path.read_bytes()), path
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())


def test_leftovers(bucket: Any, tmp_path: Path) -> None:
    """Journals, claims and notes of interrupted runs hold no secrets."""
    options = {**bucket.options, "secret": SECRET, **FAST}
    left = set()
    for act in (export, to_zarr):
        for number in (4, 7):
            denied = Error(403, "AccessDenied")
            bucket.proxy.disturb(number, denied, lasting=True, matching=lambda each: each.is_change)
            with pytest.raises(xee_tf.XeeTFError) as caught:
                act(bucket.url, options, tmp_path)
            bucket.proxy.reset()
            assert SECRET not in "".join(traceback.format_exception(caught.value))
            for key, data in bucket.read().items():
                left.add(key)
                assert SECRET.encode() not in contents(data), key
    for name in ("/uploads.json", "/identity.json", ".xee_tf/zarr.json", ".writer"):
        assert any(key.endswith(name) for key in left), name


FAST = {"config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1}}


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://bucket/m", {"key": "id", "secret": SECRET, "endpoint_url": "http://127.0.0.1:9", **FAST}),
        ("s3://bucket/m", {"secret": SECRET, "no_such_option": SECRET}),
        ("s3://bucket/m", {"client_kwargs": {"aws_session_token": SECRET, "no_such_option": 1}}),
        ("gs://bucket/m", {"token": SECRET}),  # is sent to Google, which is behind a proxy
        ("gs://bucket/m", {"token": {"private_key": SECRET}}),
        ("az://bucket/m", {"connection_string": SECRET}),
        ("http://127.0.0.1:9/m", {"client_kwargs": {"headers": {"Authorization": SECRET}}}),
        ("no-such://bucket/m", {"secret": SECRET}),
    ],
)
def test_errors(url: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors do not show storage options, whatever is wrong with them."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    acts: list[Callable[..., Any]] = [
        lambda **options: scene().tfexport(url, **PATCHES, **options),
        lambda **options: xee_tf.open_image(f"{url}-mixer.json", **options),
        lambda **options: xee_tf.Model.from_saved_model(url, **options, **MODEL).predict_image(scene()),
        lambda **options: xee_tf.serve(url, **options),
    ]
    for act in acts:
        with pytest.raises((xee_tf.XeeTFError, TypeError)) as caught:
            act(storage_options={**options, "skip_instance_cache": True})
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    ("url", "options", "shown"),
    [
        ("gs://bucket/m", {"token": "missing-key.json"}, "cannot be reached"),  # is sent to Google
        ("gs://bucket/m", {"token": "pw-17", "project": "forest"}, "cannot be reached"),
        ("s3://bucket/m", {"profile": "forest", "secret": "pw-17"}, r"profile \(forest\) could not be found"),
        ("az://bucket/m", {"account_name": "forest", "connection_string": "pw-17"}, "Connection string"),
        ("s3://bucket/m", {"key": "id", "secret": "pw-17", "endpoint_url": "localhost:9"}, "with https://"),
        ("s3://bucket/m", {"client_kwargs": {"endpoint_url": "localhost:9"}, "anon": True}, "with https://"),
    ],
)
def test_messages_are_shown(
    url: str, options: dict[str, Any], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message of an error is shown, without what may be a secret, however short."""
    pytest.importorskip({"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}[url.partition(":")[0]])
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for act in (
        Location.of(url, {**options, "skip_instance_cache": True}).read_bytes,
        lambda: xee_tf.open_image(f"{url}-mixer.json", storage_options=options),
    ):
        with pytest.raises((StorageError, DestinationError), match=shown) as caught:
            act()
        text = "".join(traceback.format_exception(caught.value))
        assert "pw-17" not in text
        assert "missing-key" not in text


@pytest.mark.parametrize(
    ("options", "masked"),
    [
        ({"secret": "at"}, "s3://bucket/data: s3 *** http://u:pw@host:1/?sig=a%2Fb&x=y"),
        ({"a": [{"b": (b"pw",)}]}, "s3://bucket/data: s3 at http://u:***@host:1/?sig=a%2Fb&x=y"),
        ({"proxy": "http://u:pw@host:1"}, "s3://bucket/data: s3 at http://u:***@host:1/?sig=a%2Fb&x=y"),
        ({"url": "https://c/?sig=a%2Fb&x=y"}, "s3://bucket/data: s3 at http://u:pw@host:1/?***"),
        ({"profile": "bucket", "x": "", "y": 1}, "s3://bucket/data: s3 at http://u:pw@host:1/?sig=a%2Fb&x=y"),
    ],
)
def test_masks(options: dict[str, Any], masked: str) -> None:
    text = "s3://bucket/data: s3 at http://u:pw@host:1/?sig=a%2Fb&x=y"
    assert mask_secrets(options, text) == masked


def test_misspelled_options(tmp_path: Path) -> None:
    for act in (
        scene().tfexport,
        scene().tfexport.plan,
        lambda path, **options: xee_tf.open_image(path, **options),
    ):
        with pytest.raises((xee_tf.XeeTFError, TypeError)) as caught:
            act(tmp_path / "scene", storage_option={"secret": SECRET})
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_logs_of_workers(bucket: Any) -> None:
    """Dask logs the key and the arguments of a task that fails."""
    options = {**bucket.options, "secret": SECRET, **FAST}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        bucket.proxy.disturb(
            4, Error(403, "AccessDenied"), lasting=True, matching=lambda each: each.is_change
        )
        with pytest.raises(xee_tf.XeeTFError, match="permission denied"):
            scene().tfexport(f"{bucket.url}/scene", storage_options=options, **PATCHES)
        logs = [line for lines in client.get_worker_logs().values() for line in lines]
        logs += list(client.get_scheduler_logs())
        assert "Compute Failed" in str(logs)
        assert SECRET not in str(logs)
