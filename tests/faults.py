"""Proxies in front of a model server that inject failures and record the requests."""

from __future__ import annotations

import http.client
import socket
import socketserver
import struct
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPMessage
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

from tests.optional import optional

grpc = optional("grpc")


@dataclass
class Status:
    """Respond with this instead of forwarding the request."""

    code: int
    body: bytes = b'{"error": "on purpose"}'
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Delay:
    """Wait before forwarding the request."""

    seconds: float


RESET = "reset"  # reset the connection without forwarding the request
RESET_AFTER = "reset after"  # reset the connection after the server has responded
TRUNCATE = "truncate"  # send half of the body
TRUNCATE_SILENTLY = "truncate silently"  # send half of the body, with a matching Content-Length
DUPLICATE = "duplicate"  # forward the request twice
RESPOND_TWICE = "respond twice"


class FaultProxy(socketserver.ThreadingTCPServer):
    """Forward HTTP requests to a server; each POST takes the next of `faults`, if there is one."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, upstream: str, faults: tuple[Any, ...] = (), hold: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.faults, self.hold = deque(faults), hold
        self.bodies: list[bytes] = []
        self.headers: list[HTTPMessage] = []
        self.paths: list[str] = []
        self.max_active = self.active = 0
        self.lock = Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""

    def __enter__(self) -> FaultProxy:
        # A short polling interval, because `__exit__` waits for it.
        Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(socketserver.StreamRequestHandler):
    server: FaultProxy

    def handle(self) -> None:
        while line := self.rfile.readline():
            method, path, _ = line.decode().split()
            headers = http.client.parse_headers(self.rfile)
            body = self.rfile.read(int(headers.get("Content-Length", 0)))
            if not self.respond(method, path, headers, body):
                return

    def respond(self, method: str, path: str, headers: HTTPMessage, body: bytes) -> bool:
        """Respond to a request; return False to close the connection."""
        proxy = self.server
        if method != "POST":
            return self.send(*self.forward(method, path, headers, body))
        with proxy.lock:
            fault = proxy.faults.popleft() if proxy.faults else None
            proxy.bodies.append(body)
            proxy.headers.append(headers)
            proxy.paths.append(path)
            proxy.active += 1
            proxy.max_active = max(proxy.max_active, proxy.active)
        try:
            if proxy.hold:
                time.sleep(proxy.hold)
            if isinstance(fault, Delay):
                time.sleep(fault.seconds)
            if fault == RESET:
                return self.reset()
            if isinstance(fault, Status):
                response = fault.code, fault.headers, fault.body
            else:
                response = self.forward(method, path, headers, body)
            if fault == DUPLICATE:
                response = self.forward(method, path, headers, body)
        finally:
            with proxy.lock:
                proxy.active -= 1
        if fault == RESET_AFTER:
            return self.reset()
        code, headers_to_send, data = response
        if fault == TRUNCATE:
            self.send(code, headers_to_send, data[: len(data) // 2], length=len(data))
            return False
        if fault == TRUNCATE_SILENTLY:
            self.send(code, headers_to_send, data[: len(data) // 2])
            return False
        return self.send(code, headers_to_send, data, twice=fault == RESPOND_TWICE)

    def forward(self, method: str, path: str, headers: HTTPMessage, body: bytes) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(self.server.upstream)
        try:
            connection.request(method, path, body, {"Content-Type": headers.get("Content-Type", "")})
            response = connection.getresponse()
            return response.status, {"Content-Type": response.headers["Content-Type"]}, response.read()
        finally:
            connection.close()

    def send(
        self, code: int, headers: dict[str, str], body: bytes, length: int | None = None, twice: bool = False
    ) -> bool:
        lines = [f"HTTP/1.1 {code} {http.client.responses.get(code, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body) if length is None else length}", "", ""]
        message = "\r\n".join(lines).encode() + body
        self.wfile.write(message + message if twice else message)
        return True

    def reset(self) -> bool:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        return False


# -- gRPC ----------------------------------------------------------------------------------------------


class GrpcFaults(grpc.GenericRpcHandler):
    """Forward calls to a server; each prediction takes the next of `faults`: a status and its details."""

    def __init__(self, upstream: str, faults: tuple[tuple[grpc.StatusCode, str], ...] = ()) -> None:
        self._channel = grpc.insecure_channel(upstream, [("grpc.max_receive_message_length", -1)])
        self.faults = deque(faults)
        self.bodies: list[bytes] = []
        self.metadata: list[dict[str, str]] = []

    def service(self, details: Any) -> Any:
        def respond(data: bytes, context: grpc.ServicerContext) -> bytes:
            if not details.method.endswith("GetModelMetadata"):
                self.bodies.append(data)
                self.metadata.append(dict(context.invocation_metadata()))
                if self.faults:
                    context.abort(*self.faults.popleft())
            try:
                return bytes(self._channel.unary_unary(details.method)(data))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise  # abort never returns

        return grpc.unary_unary_rpc_method_handler(respond)


@contextmanager
def grpc_faults(
    upstream: str, faults: tuple[tuple[grpc.StatusCode, str], ...] = ()
) -> Iterator[tuple[str, GrpcFaults]]:
    """Run a gRPC proxy, and yield its address and handler."""
    handler = GrpcFaults(upstream, faults)
    server = grpc.server(
        ThreadPoolExecutor(8), handlers=[handler], options=[("grpc.max_receive_message_length", -1)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", handler
    finally:
        server.stop(0).wait()


@contextmanager
def tcp_resets(upstream: str, sizes: tuple[int, ...]) -> Iterator[str]:
    """Run a proxy that resets its first connections, each after a number of bytes of responses."""
    remaining = deque(sizes)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            budget = remaining.popleft() if remaining else None
            host, _, port = upstream.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                Thread(target=_pump, args=(self.request, server, None), daemon=True).start()
                _pump(server, self.request, budget)
            if budget is not None:
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore interrupted connections."""

    with Server(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def _pump(source: socket.socket, target: socket.socket, budget: int | None) -> None:
    """Copy data from one socket to the other until the end, or until `budget` bytes were copied."""
    try:
        while data := source.recv(65536):
            if budget is not None and (budget := budget - len(data)) <= 0:
                return
            target.sendall(data)
    except OSError:
        pass
