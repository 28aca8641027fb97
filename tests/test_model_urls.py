"""Models at URLs: in buckets, on web servers and on other filesystems."""

from __future__ import annotations

import functools
import gc
import http.server
import io
import os
import tempfile
import uuid
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import dask
import fsspec
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import xee_tf
from tests.counting_proxy import Error
from tests.onnx_models import convolution
from tests.optional import optional
from tests.rasters import raster
from xee_tf.connector import connected
from xee_tf.errors import DestinationExistsError, MissingModelError, ModelError, OptionError, StorageError
from xee_tf.models import ModelFiles
from xee_tf.storage import Location

tf = optional("tensorflow")
keras = optional("keras")

# Keras converts its variables to numpy arrays in a way that numpy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VARIABLES = "variables/variables"


def scene(side: int = 8, chunk: int = 4) -> xr.Dataset:
    """A raster with one band of 1, 2, 3, ..."""
    return raster({"a": np.arange(1.0, side * side + 1, dtype="float32").reshape(side, side)}).chunk(
        y=chunk, x=chunk
    )


def save(path: Path, factor: float, kind: str) -> Path:
    """Save a model that multiplies its input by a factor."""
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        path.write_bytes(convolution(np.full((1, 1, 1, 1), factor), ("n", 1, "h", "w"), pad=0))
        return path
    weights = keras.initializers.Constant(factor)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer=weights)
    model = keras.Sequential([keras.Input((None, None, 1), name="a"), layer])
    if kind == "keras":
        model.save(path)
    else:
        model.export(path, verbose=False)
    return path


LOAD: dict[str, Any] = {
    "keras": xee_tf.Model.from_keras,
    "saved": xee_tf.Model.from_saved_model,
    "onnx": xee_tf.Model.from_onnx,
}
OPTIONS: dict[str, Any] = {"input_tile_size": 4, "output_bands": ["p"]}


def upload(bucket: Any, folder: Path, key: str) -> None:
    """Put a file or all files of a folder into a bucket."""
    files = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        inner = path.relative_to(folder).as_posix()
        bucket.put(key if inner == "." else f"{key}/{inner}", path.read_bytes())


def factor_of(prediction: xr.Dataset) -> float:
    """Return the factor of the model that made a prediction."""
    values = prediction["p"].values
    return float(np.unique(values / scene()["a"].values).item())


@pytest.fixture
def memory() -> Iterator[str]:
    """Return the URL of an empty folder in memory."""
    folder = f"/{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    yield f"memory:/{folder}"
    if fs.exists(folder):
        fs.rm(folder, recursive=True)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the one for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class _Silent(http.server.SimpleHTTPRequestHandler):
    """A server that may fail, withhold the times of its files, or respond with a text instead of listings."""

    times = True
    status = 200
    index: str | None = ""

    def send_head(self) -> Any:
        if self.status != 200:
            self.send_error(self.status)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> Any:
        if self.index == "":
            return super().list_directory(path)
        if self.index is None:
            self.send_error(404)
            return None
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(self.index)))
        self.end_headers()
        return io.BytesIO(self.index.encode())

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified" or self.times:
            super().send_header(keyword, value)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server(folder: Path, **options: Any) -> Iterator[str]:
    """Serve a folder over HTTP; the options are attributes of the handler."""
    handler = type("Handler", (_Silent,), options)
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    ) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("kind", ["keras", "saved", "onnx"])
def test_buckets(kind: str, bucket: Any, tmp_path: Path, temporary: Path) -> None:
    upload(bucket, save(tmp_path / f"m.{kind}", 3, kind), f"models/m.{kind}")
    model = LOAD[kind](f"{bucket.url}/models/m.{kind}", storage_options=bucket.options, **OPTIONS)
    assert repr(model).startswith(f"<xee_tf.Model {model.connector!s}")
    assert [(each.kind, each.key) for each in bucket.proxy.log] == []  # nothing before it is used
    prediction = model.predict_image(scene(), merge=False)
    assert factor_of(prediction) == 3
    assert list(temporary.glob("xee-tf-*")) == []  # copies are removed


@pytest.mark.parametrize("kind", ["keras", pytest.param("saved", marks=pytest.mark.long)])
def test_each_process_copies_the_model_once(
    kind: str, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_workers").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "of_workers"))
    upload(bucket, save(tmp_path / f"m.{kind}", 2, kind), f"m.{kind}")
    weights = f"m.{kind}" if kind == "keras" else f"m.{kind}/{VARIABLES}.data-00000-of-00001"

    def copies() -> int:
        return sum(each.kind == "get" and each.key.endswith(weights) for each in bucket.proxy.log)

    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        model = LOAD[kind](f"{bucket.url}/m.{kind}", storage_options=bucket.options, **OPTIONS)
        prediction = model.predict_image(scene(), merge=False)
        here = copies()
        assert here <= 1  # the signature of a Keras file is known once it is loaded
        for _ in range(2):
            assert set(client.run(_factor_of, prediction).values()) == {2}
        assert copies() - here == 2
        assert set(client.run(tempfile.gettempdir).values()) == {str(tmp_path / "of_workers")}
        assert list((tmp_path / "of_workers").glob("xee-tf-*")) == []  # copies are removed


def _factor_of(prediction: xr.Dataset) -> float:
    """Return the factor of a prediction that is computed in threads of this process, a worker."""
    with dask.config.set(scheduler="threads"):
        return factor_of(prediction)


@pytest.mark.parametrize("kind", ["keras", "saved", "onnx"])
def test_replaced_models(kind: str, memory: str, tmp_path: Path, temporary: Path) -> None:
    """A model that is replaced after a prediction was created is an error, and not used silently."""
    fs = fsspec.filesystem("memory")
    url = f"{memory}/m.{kind}"

    def put(factor: float) -> None:
        fs.put(str(save(tmp_path / f"{factor}.{kind}", factor, kind)), url, recursive=True)

    put(2)
    model = LOAD[kind](url, **OPTIONS)
    first = model.predict_image(scene(), merge=False)
    again = model.predict_image(scene(), merge=False)
    assert first["p"].data.name == again["p"].data.name
    fs.rm(url, recursive=True)
    put(5)
    second = model.predict_image(scene(), merge=False)
    assert second["p"].data.name != first["p"].data.name
    assert factor_of(second) == 5
    with pytest.raises(ModelError, match=f"{url} was replaced .*: create the prediction again"):
        first.compute()
    fs.rm(url, recursive=True)
    assert factor_of(second) == 5  # the process has loaded it
    with pytest.raises(MissingModelError, match=url):
        model.predict_image(scene())
    assert list(temporary.glob("xee-tf-*")) == []


@pytest.mark.parametrize("times", [True, False], ids=["times", "no times"])
@pytest.mark.parametrize("kind", ["keras", "saved", "onnx"])
def test_web_servers(kind: str, times: bool, tmp_path: Path, temporary: Path) -> None:
    """Models are told apart even if a server tells nothing of its files but their content."""
    path = save(tmp_path / f"m.{kind}", 4, kind)
    with web_server(tmp_path, times=times) as url:
        model = LOAD[kind](f"{url}/m.{kind}", **OPTIONS)
        first = model.predict_image(scene(), merge=False)
        assert factor_of(first) == 4
        if kind != "saved":
            path.unlink()
        save(path, 7, kind)
        os.utime(path if kind != "saved" else path / "saved_model.pb", (2e9, 2e9))
        assert factor_of(model.predict_image(scene(), merge=False)) == 7
        with pytest.raises(MissingModelError, match="nowhere"):
            LOAD[kind](f"{url}/nowhere", **OPTIONS).predict_image(scene())
    with pytest.raises(StorageError, match=f"Cannot read {url}.*cannot be reached"):
        LOAD[kind](f"{url}/m.{kind}", **OPTIONS).predict_image(scene())
    assert list(temporary.glob("xee-tf-*")) == []


def test_urls_with_a_query(tmp_path: Path) -> None:
    """The URL of a file that is signed for a limited time ends with parameters."""
    save(tmp_path / "m.keras", 6, "keras")
    with web_server(tmp_path) as url:
        model = xee_tf.Model.from_keras(f"{url}/m.keras?expires=1", **OPTIONS)
        assert factor_of(model.predict_image(scene(), merge=False)) == 6


@pytest.mark.parametrize("kind", ["keras", "saved", "onnx"])
def test_resuming_compares_the_content(kind: str, memory: str, tmp_path: Path) -> None:
    """A model that is uploaded again is the same one; other weights at the same URL are another one."""
    fs = fsspec.filesystem("memory")
    url, store = f"{memory}/m.{kind}", tmp_path / "p.zarr"
    path = save(tmp_path / f"m.{kind}", 2, kind)
    for _ in range(2):
        fs.put(str(path), url, recursive=True)
        xee_tf.predict_to_zarr(LOAD[kind](url, **OPTIONS), scene(), store)
        fs.rm(url, recursive=True)
    fs.put(str(save(tmp_path / f"n.{kind}", 3, kind)), url, recursive=True)
    with pytest.raises(DestinationExistsError, match=r"weights of the .* differ"):
        xee_tf.predict_to_zarr(LOAD[kind](url, **OPTIONS), scene(), store)


@pytest.mark.parametrize("kind", ["keras", "saved"])
def test_errors(kind: str, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def use(url: str, **storage_options: Any) -> None:
        options = {**bucket.options, "skip_instance_cache": True} | storage_options
        LOAD[kind](url, storage_options=options, **OPTIONS).predict_image(scene())

    bucket.put("other/file", b"text")
    with pytest.raises(MissingModelError, match=f"at {bucket.url}/none: the path does not exist"):
        use(f"{bucket.url}/none")
    with pytest.raises(MissingModelError, match="at s3://no-such/m: the bucket 'no-such' does not exist"):
        use("s3://no-such/m")
    with pytest.raises(ModelError, match=f"{bucket.url}/other.*file"):
        use(f"{bucket.url}/other")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StorageError, match=r"no credentials were found .* set AWS_PROFILE"):
        use(f"{bucket.url}/m", key=None, secret=None, anon=False)
    with pytest.raises(OptionError, match="storage_options must be a mapping"):
        LOAD[kind](f"{bucket.url}/m", storage_options="secret")


@pytest.mark.parametrize("link", ["zip", "simplecache", "filecache"])
def test_archives_and_caches(link: str, memory: str, tmp_path: Path) -> None:
    """Each version of a model is told apart, also on a filesystem on top of another one."""
    fs = fsspec.filesystem("memory")
    url = f"zip://in/m.keras::{memory}/m.zip" if link == "zip" else f"{link}::{memory}/m.keras"
    states = set()
    for factor in (2, 3):
        path = save(tmp_path / "m.keras", factor, "keras")
        fs.put(str(path), f"{memory}/m.keras")
        with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
            archive.write(path, "in/m.keras")
        fs.put(str(tmp_path / "m.zip"), f"{memory}/m.zip")
        model = xee_tf.Model.from_keras(url, storage_options={"skip_instance_cache": True}, **OPTIONS)
        assert factor_of(model.predict_image(scene(), merge=False)) == factor
        states.add(model.connector.pinned())
    assert len(states) == 2


def test_other_places_that_look_like_models(memory: str, tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(str(save(tmp_path / "saved", 2, "saved")), f"{memory}/saved", recursive=True)
    fs.put(str(save(tmp_path / "m.keras", 2, "keras")), f"{memory}/m.keras")
    with pytest.raises(ModelError, match=r"saved is a SavedModel, not a Keras file: .*from_saved_model"):
        xee_tf.Model.from_keras(f"{memory}/saved", **OPTIONS).predict_image(scene())
    with pytest.raises(ModelError, match=r"m\.keras is not a SavedModel .*it is a Keras file"):
        xee_tf.Model.from_saved_model(f"{memory}/m.keras", **OPTIONS).predict_image(scene())
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with pytest.raises(OptionError, match="the model is in memory: omit them"):
        xee_tf.Model.from_keras(model, storage_options={"anon": True})


def test_prepare_and_serve(memory: str, tmp_path: Path, temporary: Path) -> None:
    fs = fsspec.filesystem("memory")
    save(tmp_path / "1", 2, "saved")
    save(tmp_path / "12", 3, "saved")
    for version in ("1", "12"):
        fs.put(str(tmp_path / version), f"{memory}/crops/{version}", recursive=True)
    fs.pipe(f"{memory}/crops/readme.txt", b"text")
    with xee_tf.serve(f"{memory}/crops") as server:
        assert server.models == ("crops",)
        served = xee_tf.Model.from_tf_serving(server.url, "crops", **OPTIONS)
        assert factor_of(served.predict_image(scene(), merge=False)) == 3
        first = xee_tf.Model.from_tf_serving(server.url, "crops", 1, **OPTIONS)
        assert factor_of(first.predict_image(scene(), merge=False)) == 2
        assert list(temporary.glob("xee-tf-*")) == []
    with xee_tf.serve(f"{memory}/crops/12") as server:
        assert server.models == ("crops",)
    with pytest.raises(MissingModelError, match=f"at {memory}/none: the path does not exist"):
        xee_tf.serve(f"{memory}/none")
    fs.pipe(f"{memory}/texts/readme.txt", b"text")
    with pytest.raises(ModelError, match=f"{memory}/texts is not a SavedModel .*readme.txt"):
        xee_tf.serve(f"{memory}/texts")
    xee_tf.prepare_model(f"{memory}/crops/1", f"{memory}/prepared")
    assert fs.exists(f"{memory}/prepared/saved_model.pb")
    assert list(temporary.glob("xee-tf-*")) == []


def test_command(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands take credentials from the environment, as for other URLs."""
    from xee_tf_cli import main

    upload(bucket, save(tmp_path / "m.keras", 2, "keras"), "m.keras")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", bucket.options["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bucket.options["secret"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.proxy.url)
    fsspec.filesystem("s3").clear_instance_cache()
    scene().compute().to_zarr(tmp_path / "scene.zarr", consolidated=False)
    tile = ["--input-tile-size", "4", "--output-bands", "p"]
    arguments = ["predict", f"{bucket.url}/m.keras", str(tmp_path / "scene.zarr"), str(tmp_path / "p.zarr")]
    assert main([*arguments, *tile]) == 0
    found = xr.open_zarr(tmp_path / "p.zarr", decode_coords="all")
    assert factor_of(found) == 2


def test_names_that_leave_the_folder_are_refused(bucket: Any, temporary: Path) -> None:
    bucket.restore({"models/m/saved_model.pb": b"1", "models/m/x/../../../../escaped": b"2"})
    files = ModelFiles.of(f"{bucket.url}/models/m", bucket.options)
    message = r"has a file '.*escaped', whose copy would be outside the folder"
    with pytest.raises(ModelError, match=message), files.local_copy():
        pass
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("path", ["x/../m.keras", "../m.keras", "a/..", ".", "x/../y/.."])
def test_urls_that_leave_the_folder(path: str, memory: str, temporary: Path) -> None:
    files = ModelFiles.of(f"{memory}/{path}")
    files.location.fs.pipe_file(files.location.path, b"model")
    with files.local_copy() as copy:
        assert Path(copy).read_bytes() == b"model"
        assert len(Path(copy).resolve().relative_to(temporary.resolve()).parts) == 3
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["x/..", "../../c/b", "x/../../../c", "../c"])
def test_places_of_copies(name: str, memory: str, temporary: Path) -> None:
    """Neither beside the folder of the model nor in its place."""
    files = ModelFiles.of(f"{memory}/m")
    with pytest.raises(ModelError, match="outside the folder"), files.local_copy({f"{memory}/m/x": name}):
        pass


def test_names_that_no_disk_can_hold(memory: str, temporary: Path) -> None:
    files = ModelFiles.of(f"{memory}/m")
    fsspec.filesystem("memory").pipe(f"{memory}/m/{'x' * 300}/y", b"1")
    with pytest.raises(StorageError, match=f"Cannot read {files}: .*too long"), files.local_copy():
        pass


def test_markers_of_folders(bucket: Any, temporary: Path) -> None:
    """Some programs create objects for folders."""
    bucket.restore({"m/saved_model.pb": b"1", "m/x": b"", "m/x/y": b"3"})
    with ModelFiles.of(f"{bucket.url}/m", bucket.options).local_copy() as copy:
        found = {path.relative_to(copy).as_posix() for path in Path(copy).rglob("*") if path.is_file()}
    assert found == {"saved_model.pb", "x/y"}


@pytest.mark.parametrize("kind", ["keras", "saved"])
def test_a_store_that_fails_while_the_state_is_read(kind: str, bucket: Any, tmp_path: Path) -> None:
    """It is not taken for a store without times and tags, whose files are compared by their content."""
    upload(bucket, save(tmp_path / f"m.{kind}", 2, kind), f"m.{kind}")
    options = {**bucket.options, "config_kwargs": {"retries": {"max_attempts": 0}}}
    files = ModelFiles.of(f"{bucket.url}/m.{kind}", options)
    before = files.pinned()
    files.location.fs.retries = 1
    connector = LOAD[kind](files.location.url, storage_options=options, **OPTIONS).connector
    for act in (files.pinned, connector.pinned):  # the latter also looks whether there is a model
        bucket.proxy.disturb(1, Error(503, "ServiceUnavailable"), matching=lambda each: True)
        with pytest.raises(StorageError, match=f"Cannot read {files}.*too many requests"):
            act()
        assert files.pinned() == before


def test_web_servers_that_fail(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "m.keras").write_bytes(b"model")
    with web_server(tmp_path, status=503) as url:
        files = ModelFiles.of(f"{url}/m.keras")
        for act in (files.pinned, files.version, files.digest, files.location.info):
            with pytest.raises(StorageError, match=f"Cannot read {url}/m.keras.*503"):
                act()


def test_one_version_stays_loaded(memory: str, tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    url = f"{memory}/m"
    held = []
    for factor in (2, 3, 4):
        fs.put(str(save(tmp_path / f"{factor}", factor, "saved")), url, recursive=True)
        connector = xee_tf.Model.from_saved_model(url, **OPTIONS).connector
        connection = connected(connector.pinned())
        assert connected(connector) is connection
        held.append(weakref.ref(connection))
        del connection
        fs.rm(url, recursive=True)
    gc.collect()
    assert [each() is None for each in held] == [True, True, False]


def test_web_servers_without_listings(tmp_path: Path) -> None:
    save(tmp_path / "crops", 2, "saved")
    save(tmp_path / "m.keras", 3, "keras")
    for index in (None, "<html>Nothing to see</html>"):
        with web_server(tmp_path, index=index) as url:
            for act in (
                xee_tf.Model.from_saved_model(f"{url}/crops", **OPTIONS).connector.pinned,
                xee_tf.Model.from_saved_model(f"{url}/crops", **OPTIONS).connector.open,
                lambda url=url: xee_tf.serve(f"{url}/crops"),
            ):
                with pytest.raises(
                    ModelError, match=f"{url}/crops is a SavedModel, but .* not list the files"
                ):
                    act()
            with pytest.raises(MissingModelError, match=f"{url}.*only if it lists the files of folders"):
                xee_tf.serve(f"{url}/none")
            model = xee_tf.Model.from_keras(f"{url}/m.keras", **OPTIONS)
            assert factor_of(model.predict_image(scene(), merge=False)) == 3


def test_served_folders_at_urls(memory: str, temporary: Path) -> None:
    """What is too deep is not copied, and errors name the URL and not the copy."""
    pytest.importorskip("tensorflow")
    fs = fsspec.filesystem("memory")
    for name in ("deep/abc/def/saved_model.pb", "other/abc/1/saved_modelXpb"):
        fs.pipe(f"{memory}/{name}", b"not a model")
    for name in ("deep", "other"):
        with pytest.raises(ModelError, match=f"{memory}/{name} is not a SavedModel .*it contains"):
            xee_tf.serve(f"{memory}/{name}")
    fs.pipe(f"{memory}/bad/water/7/saved_model.pb", b"not a model")
    with pytest.raises(ModelError, match=f"{memory}/bad/water/7") as caught:
        xee_tf.serve(f"{memory}/bad")
    assert str(temporary) not in str(caught.value)
    with pytest.raises(ModelError, match=f"{memory}/bad/water/7") as caught:
        xee_tf.Model.from_saved_model(f"{memory}/bad/water/7", **OPTIONS).connector.open()
    assert str(temporary) not in str(caught.value)
    fs.pipe(f"{memory}/bad.keras", b"not a model")
    with pytest.raises(ModelError, match=f"{memory}/bad.keras") as caught:
        xee_tf.Model.from_keras(f"{memory}/bad.keras", **OPTIONS).connector.open()
    assert str(temporary) not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket/run#3/m.keras", "m.keras"),
        ("s3://bucket/run?3/m.keras", "m.keras"),
        ("memory://run/m#1.h5", "m#1.h5"),
        ("http://host/m.keras?key=a/b#c", "m.keras"),
        ("simplecache::https://host/m.keras?key=a/b", "m.keras"),
        ("/models/run#3/m?.keras", "m?.keras"),
    ],
)
def test_file_names(url: str, name: str) -> None:
    """Only URLs of web servers have a query."""
    assert Location.of(url).file_name == name


@pytest.mark.parametrize("create", [xee_tf.Model.from_keras, xee_tf.Model.from_saved_model])
def test_https_for_a_server_without_tls(create: Any, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    message = r"the server does not use TLS .* begin its address with http:// instead of https://\.$"
    with web_server(tmp_path) as url, pytest.raises(xee_tf.StorageError, match=message):
        create(f"https{url[4:]}/crops.keras", **OPTIONS).predict_image(scene())


def test_https_for_a_model_server_without_tls(tmp_path: Path) -> None:
    pytest.importorskip("requests")
    message = r"TLS: .* The server does not use TLS\. .* begin its address with http:// instead of https://"
    with web_server(tmp_path) as url, pytest.raises(xee_tf.ModelError, match=message):
        xee_tf.Model.from_tf_serving(f"https{url[4:]}", "crops", **OPTIONS).predict_image(scene())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "scene.tif",
            b"II*\0",
            r"scene\.tif is not a Keras file: expected a \.keras or \.h5 file\. Rasters are",
        ),
        ("model", b"PK\3\4", "model is not a Keras file"),
        ("crops.keras", b"PK\3", r"crops\.keras is damaged, or is not a Keras file"),
        ("crops.h5", b"", r"crops\.h5 is damaged, or is not a Keras file"),
        ("crops.keras", b"PK\3\4more", r"Keras cannot load .*crops\.keras: "),
    ],
)
@pytest.mark.parametrize("remote", [False, True])
def test_files_that_are_no_keras_models(
    remote: bool, name: str, content: bytes, message: str, memory: str, tmp_path: Path
) -> None:
    pytest.importorskip("tensorflow")
    file = Location.of(memory if remote else tmp_path).child(name)
    file.write_bytes(content)
    with pytest.raises(xee_tf.ModelError, match=message):
        xee_tf.Model.from_keras(file.url, **OPTIONS).predict_image(scene())
