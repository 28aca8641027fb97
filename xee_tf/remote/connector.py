"""Models on a server: what all protocols share. Batches are packed, sent, repeated and put together."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, field, fields
from threading import Lock
from typing import Any, ClassVar

import numpy.typing as npt

from xee_tf.connector import Arrays, Connector, Items, Signature, join_batches
from xee_tf.errors import OptionError, PredictionError, RecordError
from xee_tf.identity import content_hash
from xee_tf.options import Options, integer, number, option
from xee_tf.remote.addresses import GrpcTarget
from xee_tf.remote.client import Client
from xee_tf.remote.credentials import Credentials, GoogleCredentials
from xee_tf.remote.limits import AdaptiveLimit, ClusterLimit
from xee_tf.remote.payloads import Payload, Request
from xee_tf.remote.responses import Response
from xee_tf.remote.retrying import ask_until
from xee_tf.remote.statistics import recorder_of

__all__ = ["Ask", "Flow", "RemoteConnection", "RemoteConnector"]

_SIGNATURE_SECONDS = 10.0

Ask = Callable[[str, bytes | None], Response]
"""Asks an address, with a body or without one, and again if need be."""


@dataclass(frozen=True, kw_only=True)
class Flow(Options):
    """How much is sent at a time, and for how long it is tried.

    Parameters
    ----------
    max_payload_bytes : int
        Of a request, encoded, and about of an answer. Default: 1,500,000, as in Earth Engine. Shared
        endpoints of Vertex AI take that, dedicated ones 10 MB.
    output_multiplier : float
        About how many times more data the model gives than it takes: requests are smaller by that.
    max_concurrency : int
        Requests on their way at one time, over all workers of a cluster together. Default: 8. There are fewer
        for a while when the server says that it is busy (429).
    timeout : float
        Seconds that one request may take. Default: 60.
    deadline : float
        Seconds that one request and its repetitions may take, pauses included. Default: 300. Repeated are
        requests that were not answered, and those answered by 408, 429, 502, 503 or 504.
    max_response_bytes : int
        Larger answers are refused before they are read. Default: 256 MiB.
    """

    max_payload_bytes: int = option(1_500_000, integer(1))
    output_multiplier: float = option(1.0, number(1))
    max_concurrency: int = option(8, integer(1))
    timeout: float = option(60.0, number(above=0))
    deadline: float = option(300.0, number(above=0))
    max_response_bytes: int = option(256 << 20, integer(1))

    @property
    def request_bytes(self) -> int:
        """What a request may have: room is left for an answer that is larger than it."""
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
    """A model on a server. Subclasses define where it is and how their server is addressed.

    Parameters
    ----------
    payload : Payload
        How batches are written.
    flow : Flow
    credentials : {"google"} or None
        Found in the process that predicts; never held here.
    """

    payload: Payload
    flow: Flow = field(default_factory=Flow)
    credentials: Credentials = None

    anonymous_advice: ClassVar[str] = (
        "It wants to know who asks: credentials='google' sends Google's default credentials."
    )
    """What may be done if the server refuses a request without credentials."""

    def __repr__(self) -> str:
        return f"<{self}, {self.payload.format}, {self.flow}>"

    @property
    def address(self) -> str:
        """Where predictions are asked for: a URL, or a method of gRPC."""
        raise NotImplementedError

    @property
    def grpc_target(self) -> GrpcTarget | None:
        """Where gRPC is spoken. Default: requests go over HTTP."""
        return None

    def client(self) -> Client:
        """A client for this process."""
        credentials = None if self.credentials is None else GoogleCredentials()
        most = self.flow.max_response_bytes
        if (target := self.grpc_target) is not None:
            from xee_tf.remote.grpc_client import GrpcClient

            return GrpcClient(target, credentials, most)
        from xee_tf.remote.http_client import HttpClient

        return HttpClient(credentials, self.flow.max_concurrency, most)

    def wrap(self, body: bytes) -> bytes:
        """What the protocol puts around a request. Default: nothing."""
        return body

    def unwrap(self, body: bytes) -> bytes:
        """Takes off what the protocol puts around an answer. Default: nothing."""
        return body

    def advice(self, response: Response) -> str:
        """What may be done about a failure."""
        if response.code in (401, 403):
            return self.anonymous_advice if self.credentials is None else self.permission_advice
        if response.code == 413:
            return "The request is too large for it: lower max_payload_bytes."
        if "response size" in response.message.lower():
            return "Raise output_multiplier, so that less is asked for at a time."
        return ""

    def failure(self, response: Response) -> str:
        """The message of an error."""
        return f"{self}: {response} {self.advice(response)}".rstrip()

    @property
    def permission_advice(self) -> str:
        """What may be done if the server refuses the credentials."""
        return "The account of Google's default credentials on this machine may not use it."

    def ask_signature(self, ask: Ask) -> Signature:
        """What the server says of the model. Default: nothing."""
        return Signature()

    @property
    def body_limit(self) -> int:
        """Bytes that the encoded instances may have."""
        around = len(self.wrap(b""))
        return self.flow.request_bytes - (around + 4 if around else 0)  # the length of a long body: 4 more

    def open(self) -> RemoteConnection:
        """Make the client. Nothing is sent yet."""
        return RemoteConnection(self)

    def content(self) -> str | None:
        """Where the model is and how it is called; the limits of requests do not change predictions."""
        names = {each.name for each in fields(self)} - {"flow", "credentials"}
        return content_hash((str(self), {name: getattr(self, name) for name in sorted(names)}))

    def refusal(self, items: Items, count: int = 1) -> str:
        """See `Connector.refusal`: by the encoded size, which is known without the values."""
        least = self.payload.least_size(items, count)
        if least <= self.body_limit:
            return ""
        number = "one instance" if count == 1 else f"{count} instances"
        return (
            f"a request of {number} takes {least:,} bytes as {self.payload.format}, and may have "
            f"{self.body_limit:,} ({self.flow})"
        )


class RemoteConnection:
    """The client of a model on a server, with its limits and counters; for any number of threads."""

    def __init__(self, connector: RemoteConnector) -> None:
        self._connector, self._client = connector, connector.client()
        most = connector.flow.max_concurrency
        self._limit = AdaptiveLimit(most)
        self._cluster = ClusterLimit(_shared_name(connector), most)
        self._recorder = recorder_of(connector)
        # Requests of one batch are sent together: a server far away answers many in the time of one.
        self._pool = ThreadPoolExecutor(most, "xee-tf-send")
        self._signature: Signature | None = None
        self._lock = Lock()

    @property
    def signature(self) -> Signature:
        """What the server says of the model; asked once."""
        return self._asked(min(self._connector.flow.deadline, _SIGNATURE_SECONDS))

    def _asked(self, deadline: float) -> Signature:
        with self._lock:
            if self._signature is None:
                self._signature = self._connector.ask_signature(
                    lambda address, body: ask_until(
                        lambda timeout, before: self._client.ask(address, body, timeout),
                        self._connector.flow.timeout,
                        deadline,
                    )
                )
            return self._signature

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See `xee_tf.connector.Connection`. Errors have the `instances` of the request that failed."""
        self._asked(self._connector.flow.deadline).check_inputs(batch, str(self._connector))
        cluster = self._cluster.here()
        parts = list(self._answers(batch, cluster))
        names = list(parts[0])
        if any(list(part) != names for part in parts):
            raise PredictionError(f"{self._connector} answers with other outputs each time.")
        try:
            return join_batches(parts)
        except ValueError:
            shapes = {name: sorted({part[name].shape[1:] for part in parts}) for name in names}
            raise PredictionError(
                f"{self._connector} answers to one batch with several shapes: {shapes}."
            ) from None

    def _answers(
        self, batch: Arrays, cluster: AbstractContextManager[Any]
    ) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """The answers to the requests of a batch, in order."""
        total = len(next(iter(batch.values()))) if batch else 0
        waiting: deque[Future[dict[str, npt.NDArray[Any]]]] = deque()
        try:
            for request in self._requests(batch):
                if request.count == total:
                    yield self._predict_one(request, cluster)
                    return
                if len(waiting) == self._connector.flow.max_concurrency:
                    yield waiting.popleft().result()
                waiting.append(self._pool.submit(self._predict_one, request, cluster))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _requests(self, batch: Arrays) -> Iterator[Request]:
        payload, limit = self._connector.payload, self._connector.body_limit
        count = len(next(iter(batch.values()))) if batch else 0
        try:
            if self.signature.fixed_batch is None:
                yield from payload.requests(batch, limit)
                return
            body = payload.encode(batch)  # the model takes no other number
        except OptionError as error:
            raise PredictionError(f"{self._connector}: {error}", instances=range(count)) from None
        if len(body) > limit:
            raise PredictionError(
                f"{self._connector}: a request of {count} instances takes {len(body):,} bytes, and may have "
                f"{limit:,} ({self._connector.flow}).",
                instances=range(count),
            )
        yield Request(0, count, body)

    def _predict_one(
        self, request: Request, cluster: AbstractContextManager[Any]
    ) -> dict[str, npt.NDArray[Any]]:
        connector = self._connector
        instances = range(request.first, request.first + request.count)
        response = self._ask(connector.wrap(request.body), cluster)
        if not response.ok:
            self._recorder.finished(None)
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
            self._recorder.finished(None)
            raise PredictionError(
                f"{connector} sent an answer that cannot be read: {error}", instances=instances
            ) from None
        self._recorder.finished(request.count)
        return found

    def _ask(self, body: bytes, cluster: AbstractContextManager[Any]) -> Response:
        connector = self._connector

        def send(timeout: float) -> Response:
            with cluster:
                return self._client.ask(connector.address, body, timeout, connector.payload.content_type)

        def attempt(timeout: float, before: int) -> Response:
            response = self._limit.run(lambda: send(timeout))
            self._recorder.sent(len(body), response, again=before > 0)
            return response

        return ask_until(attempt, connector.flow.timeout, connector.flow.deadline)

    def close(self) -> None:
        """Close connections; requests under way are answered first."""
        self._pool.shutdown()
        self._client.close()


def _shared_name(connector: RemoteConnector) -> str:
    """The same in all processes for the same model, and nothing that is readable."""
    return f"xee-tf-{hashlib.sha256(repr(astuple(connector)).encode()).hexdigest()[:16]}"
