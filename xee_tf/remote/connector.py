"""Connectors to models on servers, which split batches into requests and send them with retries."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass, field, fields
from threading import Lock
from typing import Any, ClassVar

import numpy.typing as npt

from xee_tf.connector import Arrays, Connector, Items, Signature, join_batches, opened
from xee_tf.display import quoted
from xee_tf.errors import OptionError, PredictionError, RecordError, XeeTFError
from xee_tf.extras import require
from xee_tf.identity import content_hash
from xee_tf.options import Options, integer, number, option
from xee_tf.remote.addresses import GrpcTarget
from xee_tf.remote.client import Client
from xee_tf.remote.credentials import Credentials, GoogleCredentials
from xee_tf.remote.limits import AdaptiveLimit, ClusterLimit
from xee_tf.remote.payloads import Payload, Request
from xee_tf.remote.responses import Response
from xee_tf.remote.retrying import retry_until
from xee_tf.remote.statistics import get_recorder

__all__ = ["Fetch", "Flow", "RemoteConnector"]

_SIGNATURE_SECONDS = 10.0

Fetch = Callable[[str, bytes | None], Response]
"""Function that sends a request to an address, with an optional body, and retries it if necessary."""


@dataclass(frozen=True, kw_only=True)
class Flow(Options):
    """Limits on the size, number and duration of requests.

    Parameters
    ----------
    max_payload_bytes : int, default 1500000
        Maximum size in bytes of an encoded request, and approximately of a response. The default is that of
        Earth Engine and the limit of shared Vertex AI endpoints; dedicated endpoints accept 10 MB.
    output_multiplier : float, default 1
        Approximate ratio of the size of the model's output to that of its input. Requests are smaller by this
        factor.
    max_concurrency : int, default 8
        Maximum number of concurrent requests, over all workers of a cluster. The number is reduced while the
        server is busy (429).
    timeout : float, default 60
        Maximum duration of one attempt at a request in seconds.
    deadline : float, default 300
        Maximum duration of a request in seconds, including retries and the pauses between them. Requests are
        retried if there is no response, or if the status is 408, 429, 502, 503 or 504.
    max_response_bytes : int, default 268435456
        Maximum size of a response in bytes. Larger responses are rejected before they are read.
    """

    max_payload_bytes: int = option(1_500_000, integer(1))
    output_multiplier: float = option(1.0, number(1))
    max_concurrency: int = option(8, integer(1))
    timeout: float = option(60.0, number(above=0))
    deadline: float = option(300.0, number(above=0))
    max_response_bytes: int = option(256 << 20, integer(1))

    @property
    def request_bytes(self) -> int:
        """Maximum size of a request in bytes, such that its response stays within `max_payload_bytes`."""
        return int(self.max_payload_bytes / max(1.0, self.output_multiplier))

    def __str__(self) -> str:
        if self.output_multiplier <= 1:
            return f"max_payload_bytes={self.max_payload_bytes:,}"
        return (
            f"max_payload_bytes={self.max_payload_bytes:,} divided by "
            f"output_multiplier={self.output_multiplier:g}"
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class RemoteConnector(Connector):
    """A model on a server. Subclasses define its address and protocol.

    Parameters
    ----------
    payload : Payload
        Format of the requests.
    flow : Flow
        Limits on the requests.
    credentials : {"google"} or None
        Kind of credentials to send. The credentials themselves are found in the process that predicts.

    Raises
    ------
    MissingExtraError
        If a package that the protocol needs is not installed.
    """

    payload: Payload
    flow: Flow = field(default_factory=Flow)
    credentials: Credentials = None

    anonymous_advice: ClassVar[str] = (
        "The server requires authentication: credentials='google' sends Google's default credentials."
    )
    """Advice if the server rejects a request without credentials."""

    def __post_init__(self) -> None:
        modules = ["requests" if self.grpc_target is None else "grpc"]
        if not self.payload.is_grpc:
            modules.append("orjson")
        if self.credentials is not None:
            modules.append("google.auth")
        require("hosted", "A hosted model", *modules)

    def __repr__(self) -> str:
        return f"<{self}, {self.payload.format}, {self.flow}>"

    @property
    def address(self) -> str:
        """The address of prediction requests: a URL, or a gRPC method."""
        raise NotImplementedError

    @property
    def grpc_target(self) -> GrpcTarget | None:
        """The gRPC server. Default: None, as requests are sent over HTTP."""
        return None

    def client(self) -> Client:
        """Create a client for this process."""
        credentials = None if self.credentials is None else GoogleCredentials()
        max_bytes = self.flow.max_response_bytes
        if (target := self.grpc_target) is not None:
            from xee_tf.remote.grpc_client import GrpcClient

            return GrpcClient(target, credentials, max_bytes)
        from xee_tf.remote.http_client import HttpClient

        return HttpClient(credentials, self.flow.max_concurrency, max_bytes)

    def wrap(self, body: bytes) -> bytes:
        """Wrap an encoded batch in a message of the protocol. Default: return it unchanged."""
        return body

    def unwrap(self, body: bytes) -> bytes:
        """Unwrap the payload from a message of the protocol. Default: return it unchanged."""
        return body

    def advice(self, response: Response) -> str:
        """Return advice on how to fix a failure; empty if there is none."""
        if response.code in (401, 403):
            return self.anonymous_advice if self.credentials is None else self.permission_advice
        if response.code == 413:
            return "The request is too large for the server: lower max_payload_bytes."
        if "response size" in response.message.lower():
            return "Raise output_multiplier to send smaller requests."
        return ""

    def failure(self, response: Response) -> str:
        """Return the error message for a failed request."""
        return f"{self}: {response} {self.advice(response)}".rstrip()

    @property
    def permission_advice(self) -> str:
        """Advice if the server rejects the credentials."""
        return "The account of the default credentials on this machine has no access to the model."

    def known_signature(self) -> Signature | None:
        """Return the signature if it was fetched in this process."""
        connection = opened(self)
        return connection.fetched if isinstance(connection, RemoteConnection) else None

    def fetch_signature(self, fetch: Fetch) -> Signature:
        """Fetch the signature of the model from the server. Default: return an empty signature."""
        return Signature()

    @property
    def body_limit(self) -> int:
        """Maximum size of an encoded batch in bytes, without the message that wraps it."""
        overhead = len(self.wrap(b""))
        # The length of a long body takes up to 4 more bytes than that of an empty one.
        return self.flow.request_bytes - (overhead + 4 if overhead else 0)

    def requests(self, batch: Arrays, *, whole: bool) -> Iterator[Request]:
        """Split a batch into requests within the size limit.

        Parameters
        ----------
        batch : mapping of str to ndarray, shape (n, ...)
            The inputs of the model.
        whole : bool
            Whether the model has a fixed batch size, so that the batch is one request.

        Raises
        ------
        OptionError
            If the format does not support an array, or the smallest possible request is too large; it is
            raised before the first request is yielded.
        """
        if not whole:
            yield from self.payload.requests(batch, self.body_limit)
            return
        body, count = self.payload.encode(batch), len(next(iter(batch.values())))
        if excess := self.describe_excess(len(body), count):
            raise OptionError(f"{excess}.")
        yield Request(0, count, body)

    def open(self) -> RemoteConnection:
        """Create the client, without sending a request."""
        return RemoteConnection(self)

    def content(self) -> str | None:
        """Return a hash of all fields that can change predictions: not of the limits and credentials."""
        names = {each.name for each in fields(self)} - {"flow", "credentials"}
        return content_hash((str(self), {name: getattr(self, name) for name in sorted(names)}))

    def size_problem(self, items: Items, count: int = 1) -> str:
        """See `Connector.size_problem`; compares the minimum encoded size with the limit."""
        return self.describe_excess(self.payload.min_size(items, count), count)

    def describe_excess(self, size: int, count: int) -> str:
        """Describe a batch of `count` instances that exceeds the limit; empty if it does not."""
        if size <= self.body_limit:
            return ""
        instances = "1 instance" if count == 1 else f"{count} instances"
        return (
            f"a request with {instances} takes {size:,} bytes as {self.payload.format}; the limit is "
            f"{self.body_limit:,} bytes ({self.flow})"
        )


class RemoteConnection:
    """Client of a model on a server, with limits and statistics; may be used by several threads at once."""

    def __init__(self, connector: RemoteConnector) -> None:
        self._connector, self._client = connector, connector.client()
        maximum = connector.flow.max_concurrency
        self._limit = AdaptiveLimit(maximum)
        self._cluster_limit = ClusterLimit(_semaphore_name(connector), maximum)
        self._recorder = get_recorder(connector)
        # The requests of a batch are sent concurrently, to hide the latency of the network.
        self._pool = ThreadPoolExecutor(maximum, "xee-tf-send")
        self._signature: Signature | None = None
        self._lock = Lock()

    @property
    def fetched(self) -> Signature | None:
        """The signature of the model, if it was fetched."""
        return self._signature

    @property
    def signature(self) -> Signature:
        """The signature of the model, which is fetched from the server once."""
        return self._fetch_signature(min(self._connector.flow.deadline, _SIGNATURE_SECONDS))

    def _fetch_signature(self, deadline: float) -> Signature:
        with self._lock, self._masked_errors():
            if self._signature is None:
                self._signature = self._connector.fetch_signature(
                    lambda address, body: retry_until(
                        lambda timeout, attempts: self._client.send(address, body, timeout),
                        self._connector.flow.timeout,
                        deadline,
                    )
                )
            return self._signature

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See `xee_tf.connector.Connection`. Errors have the `instances` of the request that failed."""
        with self._masked_errors():
            return self._predict(batch)

    @contextmanager
    def _masked_errors(self) -> Iterator[None]:
        """Remove credentials from errors, which may contain a part of a response that repeats them."""
        try:
            yield
        except XeeTFError as error:
            error.args = (self._client.masked(str(error)), *error.args[1:])  # str limits the length
            raise

    def _predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        self._fetch_signature(self._connector.flow.deadline).check_inputs(batch, str(self._connector))
        semaphore = self._cluster_limit.semaphore()
        parts = list(self._outputs(batch, semaphore))
        names = sorted(parts[0])  # servers send the outputs in any order
        for part in parts:
            if sorted(part) != names:
                raise PredictionError(
                    f"{self._connector} returned different outputs for requests of one batch: "
                    f"{quoted(names)} and {quoted(sorted(part))}."
                )
        try:
            return join_batches(parts)
        except ValueError:
            shapes = {name: sorted({part[name].shape[1:] for part in parts}) for name in names}
            raise PredictionError(
                f"{self._connector} returned different shapes for requests of one batch: {shapes}."
            ) from None

    def _outputs(
        self, batch: Arrays, semaphore: AbstractContextManager[Any]
    ) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Send the requests of a batch, and yield the outputs of each in order."""
        total = len(next(iter(batch.values()))) if batch else 0
        pending: deque[Future[dict[str, npt.NDArray[Any]]]] = deque()
        try:
            for request in self._requests(batch):
                if request.count == total:
                    yield self._predict_request(request, semaphore)
                    return
                if len(pending) == self._connector.flow.max_concurrency:
                    yield pending.popleft().result()
                pending.append(self._pool.submit(self._predict_request, request, semaphore))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def _requests(self, batch: Arrays) -> Iterator[Request]:
        """Split a batch into requests; see `RemoteConnector.requests`."""
        try:
            yield from self._connector.requests(batch, whole=self.signature.fixed_batch is not None)
        except OptionError as error:
            instances = range(len(next(iter(batch.values()))) if batch else 0)
            raise PredictionError(f"{self._connector}: {error}", instances=instances) from None

    def _predict_request(
        self, request: Request, semaphore: AbstractContextManager[Any]
    ) -> dict[str, npt.NDArray[Any]]:
        """Send one request and decode its response."""
        connector = self._connector
        instances = range(request.first, request.first + request.count)
        response = self._send(connector.wrap(request.body), semaphore)
        if not response.ok:
            self._recorder.add_failure()
            raise PredictionError(connector.failure(response), instances=instances)
        outputs = self.signature.outputs or {}
        try:
            found = connector.payload.decode(
                connector.unwrap(response.body),
                count=request.count,
                name=next(iter(outputs)) if len(outputs) == 1 else "output",
                dtypes={name: info.dtype for name, info in outputs.items() if info.dtype is not None},
            )
        except RecordError as error:
            self._recorder.add_failure()
            raise PredictionError(
                f"{connector} returned an invalid response: {error}", instances=instances
            ) from None
        self._recorder.add_success(request.count)
        return found

    def _send(self, body: bytes, semaphore: AbstractContextManager[Any]) -> Response:
        """Send a request within the limits, and retry it if necessary."""
        connector = self._connector

        def send(timeout: float) -> Response:
            with semaphore:
                return self._client.send(connector.address, body, timeout, connector.payload.content_type)

        def attempt(timeout: float, attempts: int) -> Response:
            response = self._limit.run(lambda: send(timeout))
            self._recorder.add_attempt(len(body), response, is_retry=attempts > 0)
            return response

        return retry_until(attempt, connector.flow.timeout, connector.flow.deadline)

    def close(self) -> None:
        """Wait for the requests in progress, and close the connections."""
        self._pool.shutdown()
        self._client.close()


def _semaphore_name(connector: RemoteConnector) -> str:
    """Return a name that is the same in all processes, and that does not reveal the connector's fields."""
    return f"xee-tf-{hashlib.sha256(repr(astuple(connector)).encode()).hexdigest()[:16]}"
