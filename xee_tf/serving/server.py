"""Start and stop a server."""

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
from threading import Thread
from types import TracebackType
from typing import Any

from xee_tf.display import Summary, abbreviated
from xee_tf.errors import OptionError, shorten
from xee_tf.extras import extra
from xee_tf.options import integer, number
from xee_tf.serving.folders import local_models
from xee_tf.serving.models import Models
from xee_tf.storage import PathLike

__all__ = ["Server", "serve", "stop_signal"]

_FOREVER = 1 << 30
_SIGNAL_SECONDS = 0.2


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
    storage_options: Mapping[str, Any] | None = None,
) -> Server:
    """Serve SavedModels over HTTP and gRPC, as TensorFlow Serving, Vertex AI and AI Platform do.

    The server accepts requests when this function returns, and runs in threads of this process until it is
    closed. It has no authentication or TLS: use it on the loopback address, or behind a proxy. While it runs,
    the garbage collector ignores the objects that existed before and runs less often. Requests are logged by
    the logger ``xee_tf.serving``, if it is enabled for the level INFO.

    ========================================================================  =============================
    address                                                                   accepts
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
        or a folder of versions. All are loaded immediately. Requests without a version use the latest one.
        Models at a URL, such as ``s3://bucket/models``, are copied to a private temporary folder, which is
        removed when they are loaded.
    name : str, optional
        Name of the model, if there is only one. Default: the name of its folder.
    labels : mapping of str to int, optional
        Labels of versions, such as ``{"stable": 1}``.
    host : str, default "127.0.0.1"
        Address to listen on. The default accepts only requests from this machine.
    port, grpc_port : int, default 0
        Ports for HTTP and gRPC. 0 selects a free port.
    max_request_bytes : int, default 1073741824
        Maximum size of a request in bytes. Larger requests are rejected (413, RESOURCE_EXHAUSTED). All
        requests in progress together may have 2 GiB, or twice this size if that is more; others are rejected
        (429 with Retry-After, RESOURCE_EXHAUSTED).
    max_concurrency : int, default 64
        Maximum number of concurrent predictions over HTTP, and the same number over gRPC. Others are rejected
        (429 with Retry-After, RESOURCE_EXHAUSTED). A request counts when it has arrived completely; clients
        that send slowly, or nothing, do not keep others out.
    max_batch_size : int, default 0
        Maximum number of instances in a joined call. Small requests (up to 0.5 MiB) that wait for a free slot
        are joined, which gives 1.3 to 3 times the throughput with 32 concurrent clients. Predictions may then
        differ in the last bits, depending on the requests that are joined. 0 disables joining, as in
        TensorFlow Serving.
    grace : float, default 30
        Maximum time in seconds to complete the requests in progress when the server is closed.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    Server
        The running server, which is a context manager. Its text is the base URL for HTTP.

    Raises
    ------
    MissingModelError, ModelError
        If a SavedModel is not found or cannot be loaded.
    StorageError
        If a URL cannot be read.
    OptionError
        If an option is not valid, or a port is in use.

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
    _check_names(name, labels, host)
    with ExitStack() as stack:
        with local_models(path, name, storage_options) as folders:
            http_socket = stack.enter_context(_listen(host, port))
            models = Models(folders, labels or {}, max_batch_size)
        address = f"[{host}]" if ":" in host else host
        stack.enter_context(_reduced_garbage_collection())
        grpc_port = stack.enter_context(
            _run_servers(models, http_socket, f"{address}:{grpc_port}", limits, grace)
        )
        url = f"http://{address}:{http_socket.getsockname()[1]}"
        signatures = {name: tuple(models.find(name).signatures) for name in models.names}
        return Server(url, f"{address}:{grpc_port}", tuple(models.names), stack.pop_all(), signatures)


def _check_names(name: Any, labels: Any, host: Any) -> None:
    """Check the types of options that are names or contain them."""
    if not (name is None or isinstance(name, str)):
        raise OptionError(f"name must be a string, such as 'landcover'; got {shorten(repr(name))}.")
    if not isinstance(host, str):
        raise OptionError(f"host must be a string, such as '127.0.0.1'; got {shorten(repr(host))}.")
    if not (labels is None or isinstance(labels, Mapping)):
        raise OptionError(
            f"labels must be a mapping of names to versions, such as {{'stable': 1}}; got "
            f"{shorten(repr(labels))}."
        )


class Server(AbstractContextManager["Server"]):
    """A running server; see `serve`.

    Parameters
    ----------
    url : str
        Base URL for HTTP, without a trailing slash.
    grpc : str
        Address for gRPC (``host:port``), without TLS.
    models : tuple of str
        Names of the models.
    stack : contextlib.ExitStack
        Resources to release when the server is closed.
    signatures : mapping of str to tuple of str, optional
        Names of the signatures of each model, in its latest version.

    Examples
    --------
    >>> Server("http://127.0.0.1:8501", "127.0.0.1:8500", ("landcover",), ExitStack())
    <xee_tf.Server landcover at http://127.0.0.1:8501, gRPC 127.0.0.1:8500>
    """

    def __init__(
        self,
        url: str,
        grpc: str,
        models: tuple[str, ...],
        stack: ExitStack,
        signatures: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.url, self.grpc, self.models = url, grpc, models
        self.signatures = signatures or {}
        # Also closes a server that is garbage-collected, or still runs when the process ends.
        self._close = weakref.finalize(self, stack.close)

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"<xee_tf.Server {', '.join(self.models)} at {self.url}, gRPC {self.grpc}>"

    def _repr_html_(self) -> str:
        state = "running" if self._close.alive else "closed"
        rows = [
            ("models", abbreviated(self.models)),
            ("HTTP", self.url),
            ("gRPC", self.grpc),
            ("state", state),
        ]
        return Summary("Server", "", rows).html()

    def close(self) -> None:
        """Stop accepting requests, complete those in progress, and stop all threads.

        Examples
        --------
        >>> server = Server("http://127.0.0.1:8501", "127.0.0.1:8500", ("landcover",), ExitStack())
        >>> server.close()
        """
        self._close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StopSignal:
    """Whether a signal to stop has arrived; see `stop_signal`."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Say that it has arrived. A handler can call this at any moment, unlike `threading.Event.set`."""
        self._is_set = True

    def is_set(self) -> bool:
        """Return whether it has arrived."""
        return self._is_set

    def wait(self) -> None:
        """Wait until it arrives.

        Python runs handlers only in the main thread, which the system does not wake if another thread of the
        process gets the signal, or on Windows if the thread waits for a lock.
        """
        while not self._is_set:
            time.sleep(_SIGNAL_SECONDS)


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Yield an object that is set by Ctrl-C or SIGTERM; a second signal terminates the process.

    Only the main thread can use it.
    """
    stop = StopSignal()

    def on_signal(*_: object) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)

    handlers = {signum: signal.signal(signum, on_signal) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        restore()


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """Open a socket that listens on an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm, which delays small responses by 40 ms, only for sockets that declare
    # their protocol.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        if os.name == "posix":  # a server that is restarted can use the same port immediately
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1024)
        except OSError as error:
            raise OptionError(f"The server cannot listen on {host}, port {port}: {error.strerror}.") from None
        yield listener


@contextmanager
def _reduced_garbage_collection() -> Iterator[None]:
    """Exclude the many objects of TensorFlow and the models from garbage collection, and run it less often.

    JSON with many numbers creates many objects. Garbage collection would dominate the time of a request.
    """
    gc.collect()
    gc.freeze()
    threshold = gc.get_threshold()
    gc.set_threshold(200_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()


@contextmanager
def _run_servers(
    models: Models,
    http_socket: socket.socket,
    grpc_address: str,
    limits: Mapping[str, int],
    grace: float,
) -> Iterator[int]:
    """Run the HTTP and gRPC servers, and yield the port of the latter."""
    # Imported here, because these libraries are needed only to serve.
    with extra("serve", "A model server"):
        import uvicorn

    from xee_tf.serving.connections import limited_protocol
    from xee_tf.serving.grpc_service import grpc_server
    from xee_tf.serving.held import HeldBytes
    from xee_tf.serving.limits import PatientClock
    from xee_tf.serving.rest import rest_app

    held, clock = HeldBytes(limits["max_request_bytes"]), PatientClock()
    protocol = limited_protocol(limits["max_concurrency"], clock)
    # Each protocol has its own pool: a slow client of one must not occupy the threads of the other.
    with (
        ThreadPoolExecutor(limits["max_concurrency"], "xee-tf-serve-http") as pool,
        grpc_server(models, grpc_address, held, **limits) as (rpc_server, port, waiting),
    ):
        config = uvicorn.Config(
            rest_app(models, pool, held, clock, **limits),
            http=protocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=_FOREVER,  # the connections limit themselves
            timeout_graceful_shutdown=max(1, round(grace)),
        )
        http_server = uvicorn.Server(config)
        thread = Thread(target=http_server.run, args=([http_socket],), name="xee-tf-serve-http", daemon=True)
        rpc_server.start()
        thread.start()
        try:
            while not http_server.started:
                if not thread.is_alive():
                    raise OptionError("The HTTP server did not start; see its log.")
                time.sleep(0.01)
            yield port
        finally:
            protocol.is_stopping = waiting.is_stopping = True
            http_server.should_exit = True
            stopped = rpc_server.stop(grace)
            thread.join()
            stopped.wait()
