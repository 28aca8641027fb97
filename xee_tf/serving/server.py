"""A running server: its addresses, its start, its graceful end."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Event, Thread
from types import TracebackType

from xee_tf.errors import OptionError
from xee_tf.extras import extra
from xee_tf.options import integer, number
from xee_tf.serving.folders import find_models
from xee_tf.serving.models import Models
from xee_tf.storage import PathLike

__all__ = ["Server", "serve", "stop_signal"]


def serve(
    path: PathLike,
    *,
    name: str | None = None,
    labels: Mapping[str, int] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    grpc_port: int = 0,
    max_request_bytes: int = 1 << 30,
    max_concurrency: int = 64,
    max_batch_size: int = 0,
    grace: float = 30.0,
) -> Server:
    """Serve SavedModels over HTTP and gRPC, as TensorFlow Serving, Vertex AI and AI Platform do.

    The server is up when this returns; it lives in threads of this process until it is closed. It asks
    nobody who they are and does not encrypt: leave it at the loopback address, or put a proxy in front.
    As long as it runs, the garbage collector spares what was there before, and looks at the rest less often.

    ========================================================================  =============================
    address                                                                   takes
    ========================================================================  =============================
    ``/v1/models/NAME[/versions/N|/labels/L]:predict``                        TensorFlow Serving's JSON
    ``/v1/models/NAME[/versions/N|/labels/L][/metadata]``                     GET: state, signatures
    ``/v1/projects/P/locations/L/endpoints/E:predict``                        Vertex AI's JSON
    ``/v1/projects/P/locations/L/endpoints/E:rawPredict``                     TensorFlow Serving's JSON, or a
                                                                              PredictRequest
    ``/v1/projects/P/models/NAME[/versions/V]:predict``                       AI Platform's JSON
    ``/health``                                                               GET
    gRPC ``tensorflow.serving.PredictionService``                             Predict, GetModelMetadata
    gRPC ``google.cloud.aiplatform.v1.PredictionService``                     DirectRawPredict
    ========================================================================  =============================

    Parameters
    ----------
    path : path-like
        A SavedModel; a folder of its versions (``1``, ``2``, ...); or a folder of models, each a SavedModel
        or a folder of versions. All are loaded at once; requests that name no version get the latest.
    name : str, optional
        Name of the model, if there is one. Default: that of its folder.
    labels : mapping from str to int, optional
        Names of versions, such as ``{"stable": 1}``.
    host : str, optional
        Where to listen. Default: only this machine can ask.
    port, grpc_port : int, optional
        Of HTTP and gRPC. Default: any that are free.
    max_request_bytes : int, optional
        Longer requests are refused (413, RESOURCE_EXHAUSTED). Default: 1 GiB.
    max_concurrency : int, optional
        Predictions under way at a time over HTTP, and as many over gRPC; further ones are refused (429 with
        Retry-After, RESOURCE_EXHAUSTED). Default: 64.
    max_batch_size : int, optional
        Small requests (half a MiB at most) that wait for one another anyway run together, up to so many
        instances: with 32 clients at once 1.3 to 3 times as many a second. What a model answers may then
        differ in the last bits with what others ask. Default: 0, never, as TensorFlow Serving has it.
    grace : float, optional
        Seconds that requests under way have to end when the server closes. Default: 30.

    Returns
    -------
    Server
        For a ``with`` statement; as text it is the base URL of its HTTP side.

    Raises
    ------
    MissingModelError, ModelError
        If there is no SavedModel, or one cannot be loaded.
    OptionError
        If an option cannot be used, or a port is taken.

    Examples
    --------
    >>> import tempfile, requests, tensorflow as tf
    >>> class Ndvi(tf.Module):
    ...     @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "bands")])
    ...     def __call__(self, bands):
    ...         return {"ndvi": (bands[:, 1] - bands[:, 0]) / (bands[:, 1] + bands[:, 0])}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tf.saved_model.save(Ndvi(), f"{folder}/ndvi")
    ...     with serve(f"{folder}/ndvi") as server:
    ...         address = f"{server}/v1/models/ndvi:predict"
    ...         requests.post(address, json={"instances": [[1, 3], [2, 2]]}, timeout=30).json()
    {'predictions': [0.5, 0.0]}
    """
    limits = {
        "max_request_bytes": integer(1)(max_request_bytes, "max_request_bytes"),
        "max_concurrency": integer(1)(max_concurrency, "max_concurrency"),
    }
    port, grpc_port = integer(0, 65535)(port, "port"), integer(0, 65535)(grpc_port, "grpc_port")
    max_batch_size = integer(0)(max_batch_size, "max_batch_size")
    grace = number(0)(grace, "grace")
    folders = find_models(path, name)
    with ExitStack() as stack:
        http_socket = stack.enter_context(_listening(host, port))
        models = Models(folders, labels or {}, max_batch_size)
        pool = stack.enter_context(ThreadPoolExecutor(limits["max_concurrency"], "xee-tf-serve"))
        bound = f"[{host}]" if ":" in host else host
        stack.enter_context(_few_collections())
        grpc_bound = stack.enter_context(
            _running(models, pool, http_socket, f"{bound}:{grpc_port}", limits, grace)
        )
        url = f"http://{bound}:{http_socket.getsockname()[1]}"
        return Server(url, f"{bound}:{grpc_bound}", tuple(models.names), stack.pop_all())


class Server(AbstractContextManager["Server"]):
    """A server that runs; see `serve`.

    Attributes
    ----------
    url : str
        Base of its addresses over HTTP, without a slash at the end.
    grpc : str
        "host:port" of its gRPC side, without encryption.
    models : tuple of str
        Names of what it serves.
    """

    def __init__(self, url: str, grpc: str, models: tuple[str, ...], stack: ExitStack) -> None:
        self.url, self.grpc, self.models = url, grpc, models
        # Also of a server that is forgotten, or still runs when the process ends.
        self._end = weakref.finalize(self, stack.close)

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"<xee_tf.Server of {', '.join(self.models)} at {self.url}, gRPC {self.grpc}>"

    def close(self) -> None:
        """Take no more requests, answer those under way, and end all threads."""
        self._end()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def stop_signal() -> Iterator[Event]:
    """An event that Ctrl-C or SIGTERM sets, for the main thread; a second signal terminates the process."""
    stop = Event()

    def on_signal(*_: object) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        restore()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Of a socket that does not name its protocol asyncio does not know that it is TCP, and leaves small
    # answers to wait for company: 40 ms each.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as found:
        if os.name == "posix":  # a server that is started again may have its port at once
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
            found.listen(1024)
        except OSError as error:
            raise OptionError(f"The server cannot listen at {host}, port {port}: {error.strerror}.") from None
        yield found


@contextmanager
def _few_collections() -> Iterator[None]:
    """Spare the garbage collector the many objects that TensorFlow and the models are made of.

    JSON of many numbers makes many objects, so that it spends most of its time looking at all of them.
    """
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def _running(
    models: Models,
    pool: ThreadPoolExecutor,
    http_socket: socket.socket,
    grpc_address: str,
    limits: Mapping[str, int],
    grace: float,
) -> Iterator[int]:
    """Both sides; gives the port of the gRPC one."""
    # The libraries of the server are imported where there is something to serve.
    with extra("serve", "A model server"):
        import uvicorn

    from xee_tf.serving.grpc_service import grpc_server
    from xee_tf.serving.rest import rest_app

    by_grpc, port = grpc_server(models, pool, grpc_address, **limits)
    config = uvicorn.Config(
        rest_app(models, pool, **limits),
        http="httptools",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    by_http = uvicorn.Server(config)
    thread = Thread(target=by_http.run, args=([http_socket],), name="xee-tf-serve-http", daemon=True)
    by_grpc.start()
    thread.start()
    try:
        while not by_http.started:
            if not thread.is_alive():
                raise OptionError("The HTTP side of the server did not start; its log says why.")
            time.sleep(0.01)
        yield port
    finally:
        by_http.should_exit = True
        ended = by_grpc.stop(grace)
        thread.join()
        ended.wait()
