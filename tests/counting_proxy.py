"""A proxy in front of the server of an object store that counts requests and bytes, and disturbs requests.

See `tests.buckets` for the servers.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import signal
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["ACCOUNT", "DROP", "DROP_AFTER", "Call", "CountingProxy", "Error", "Kill", "Request"]


@dataclass
class Request:
    """A request that was made: its kind, its key, and the bytes of objects that it moved.

    The kinds are "get", "head", "put", "copy", "delete", "list" and "bucket", and for objects that are
    uploaded in parts "begin", "part", "copy part", "complete", "abort", "list uploads" and "list parts".
    """

    method: str
    kind: str
    key: str
    query: str = ""
    up: int = 0
    down: int = 0
    copied: int = 0
    status: int | None = None

    @property
    def is_change(self) -> bool:
        """Whether it changes the store."""
        return self.method not in ("GET", "HEAD")


@dataclass
class Error:
    """Respond with an error instead of forwarding the request."""

    status: int
    code: str  # such as "AccessDenied", "SlowDown" or "NoSuchKey"


@dataclass
class Kill:
    """Kill a process, and do not forward its request."""

    pid: int | None = None


@dataclass
class Call:
    """Call a function before the request is forwarded, for example to let another process interfere."""

    function: Callable[[], object]


ACCOUNT = "devstoreaccount1"
"""The account of Azurite, with which its paths begin."""

DROP = "drop"  # close the connection without forwarding the request
DROP_AFTER = "drop after"  # forward the request, and close the connection instead of responding

Disturbance = Error | Kill | Call | str


@dataclass
class Totals:
    """What the requests of a proxy add up to."""

    requests: int
    kinds: Counter[str]
    up: int
    down: int
    copied: int


class CountingProxy(http.server.ThreadingHTTPServer):
    """Forward requests to a server, count them, and disturb one or all of those that change something.

    Parameters
    ----------
    upstream : str
        URL of the server.
    store : {"s3", "azure", "gcs"}
        The interface of the server.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str, store: str = "s3") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.store = store
        self.size_of: Callable[[str], int] = lambda key: 0  # of an object; set by the bucket
        self.lock = Lock()
        self.reset()

    @property
    def url(self) -> str:
        """Address of the proxy."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reset(self) -> None:
        """Forget the requests so far, and disturb nothing."""
        with self.lock:
            self.log: list[Request] = []
            self._matched = 0
            self._disturbance: Disturbance | None = None

    def disturb(
        self,
        number: int,
        disturbance: Disturbance,
        *,
        lasting: bool = False,
        matching: Callable[[Request], bool] = lambda request: request.is_change,
    ) -> None:
        """Disturb the request `number` (from 1) of those that match from now on.

        By default, requests match that change something. With `lasting`, all matching requests after it
        are disturbed too: clients retry, so an error that happens once is often not noticed.
        """
        with self.lock:
            self._matched, self._number, self._lasting = 0, number, lasting
            self._matching, self._disturbance = matching, disturbance

    @property
    def was_disturbed(self) -> bool:
        """Whether the request to disturb was made."""
        return self._disturbance is not None and self._matched >= self._number

    def totals(self) -> Totals:
        """Add up the requests since the last `reset`."""
        with self.lock:
            log = list(self.log)
        return Totals(
            requests=len(log),
            kinds=Counter(request.kind for request in log),
            up=sum(request.up for request in log),
            down=sum(request.down for request in log),
            copied=sum(request.copied for request in log),
        )

    def _note(self, request: Request) -> Disturbance | None:
        with self.lock:
            self.log.append(request)
            if self._disturbance is None or not self._matching(request):
                return None
            self._matched += 1
            hit = self._matched == self._number or (self._lasting and self._matched > self._number)
            return self._disturbance if hit else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""

    def __enter__(self) -> CountingProxy:
        Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: CountingProxy
    protocol_version = "HTTP/1.1"
    _connection: http.client.HTTPConnection | None = None

    def log_message(self, format: str, *values: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        proxy = self.server
        body = self._body()
        request = _CLASSIFY[proxy.store](self.command, self.path, self.headers, body)
        disturbance = proxy._note(request)
        if isinstance(disturbance, Error):
            request.status = disturbance.status
            return self._respond(disturbance.status, *_described(disturbance, proxy.store))
        if isinstance(disturbance, Kill):
            if disturbance.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(disturbance.pid, signal.SIGKILL)
            return self._drop()
        if disturbance == DROP:
            return self._drop()
        if isinstance(disturbance, Call):
            disturbance.function()
        status, headers, data = self._forward(body)
        request.status = status
        if request.kind == "get" and status < 300:
            request.down = len(data)
        if request.kind in ("copy", "copy part") and status < 300:
            request.copied = self._copied()
        if disturbance == DROP_AFTER:
            return self._drop()
        self._respond(status, headers, data)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - names of http.server

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        skipped = ("connection", "transfer-encoding", "expect", "content-length")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
        if body or self.command in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        return self._ask(self.command, self.path, headers, body)

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        for attempt in range(2):
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self.server.upstream)
            try:
                self._connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
                for name, value in headers.items():
                    self._connection.putheader(name, value)
                self._connection.endheaders(body or None)
                response = self._connection.getresponse()
                return response.status, dict(response.headers.items()), response.read()
            except (OSError, http.client.HTTPException):  # the server closes idle connections
                self._connection.close()
                self._connection = None
                if attempt:
                    raise
        raise AssertionError

    def _copied(self) -> int:
        """Return the number of bytes that a copy request moved inside the store."""
        if span := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("x-amz-copy-source-range", "")):
            return int(span[2]) - int(span[1]) + 1
        if self.server.store == "gcs":
            source = self.path.partition("/o/")[2].partition("/rewriteTo/")[0].partition("/copyTo/")[0]
        else:
            url = self.headers.get("x-amz-copy-source") or self.headers["x-ms-copy-source"]
            source = urlsplit(url).path.lstrip("/").removeprefix(f"{ACCOUNT}/").partition("/")[2]
        return self.server.size_of(unquote(source))

    def _respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        skipped = ("connection", "transfer-encoding", "server", "date")
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in skipped and (name.lower() != "content-length" or self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _drop(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError, ValueError):  # the connection was dropped
            super().finish()
        if self._connection is not None:
            self._connection.close()


def _described(error: Error, store: str) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of an error."""
    message = f"{error.code} on purpose"
    if store == "gcs":
        document = {"error": {"code": error.status, "message": message, "errors": [{"reason": error.code}]}}
        return {"Content-Type": "application/json"}, json.dumps(document).encode()
    text = f"<Code>{error.code}</Code><Message>{message}</Message>"
    headers = {"Content-Type": "application/xml", "x-ms-error-code": error.code}
    return headers, f"<?xml version='1.0'?><Error>{text}</Error>".encode()


def _split(path: str) -> tuple[str, dict[str, list[str]], str]:
    parts = urlsplit(path)
    return (
        unquote(parts.path).lstrip("/"),
        parse_qs(parts.query, keep_blank_values=True),
        unquote(parts.query),
    )


def _classify_s3(method: str, path: str, headers: Any, body: bytes) -> Request:
    path, query, text = _split(path)
    bucket, _, key = path.partition("/")
    request = Request(
        method, _kind(method, key, query, "x-amz-copy-source" in headers), f"{bucket}/{key}", text
    )
    if method in ("PUT", "POST") and request.kind in ("put", "part"):
        request.up = int(headers.get("x-amz-decoded-content-length", len(body)))
    return request


def _kind(method: str, key: str, query: dict[str, list[str]], is_copy: bool) -> str:
    if method == "GET" and "uploads" in query:
        return "list uploads"
    if "delete" in query:
        return "delete"
    if not key:
        return "list" if method == "GET" and ("list-type" in query or "prefix" in query) else "bucket"
    if "uploads" in query:
        return "begin"
    if "uploadId" in query:
        part = "copy part" if is_copy else "part"
        return {"GET": "list parts", "PUT": part, "POST": "complete", "DELETE": "abort"}[method]
    return "copy" if is_copy else method.lower()


def _classify_azure(method: str, path: str, headers: Any, body: bytes) -> Request:
    path, query, text = _split(path)
    key = path.removeprefix(f"{ACCOUNT}/")
    comp = query.get("comp", [""])[0]
    if "restype" in query:
        kind = "list" if comp == "list" else "bucket"
    elif comp == "blocklist":
        kind = "list parts" if method == "GET" else "complete"
    elif comp == "block":
        kind = "part"
    else:
        kind = "copy" if "x-ms-copy-source" in headers else method.lower()
    return Request(method, kind, key, text, up=len(body) if kind in ("put", "part") else 0)


def _classify_gcs(method: str, path: str, headers: Any, body: bytes) -> Request:
    path, query, text = _split(path)
    bucket, _, key = path.partition("/b/")[2].partition("/o")
    key = f"{bucket}{key}"
    if path.startswith("upload/"):
        if query.get("uploadType") == ["resumable"] and method == "POST":
            return Request(method, "begin", key, text)
        boundary = re.search(rb"^--\S+", body)
        if boundary is None:
            return Request(method, "put", key, text, up=len(body))
        _, about, content, _ = re.split(rb"\n?" + re.escape(boundary[0]), body, maxsplit=3)
        name = json.loads(about.partition(b"\n\n")[2])["name"]
        # The parts of an object are objects in the hidden folder.
        kind = "part" if re.search(r"\.parts/.*\.\d{5}-", name) else "put"
        return Request(method, kind, f"{bucket}/{name}", text, up=len(content.partition(b"\n\n")[2]))
    if path.startswith("batch/"):
        return Request(method, "delete", key, text)
    if key.endswith("/compose"):
        return Request(method, "complete", key.removesuffix("/compose"), text)
    if "/rewriteTo/" in key or "/copyTo/" in key:
        return Request(method, "copy", key, text)
    if "/" not in key:
        return Request(method, "list" if path.endswith("/o") else "bucket", key, text)
    kind = "head" if method == "GET" and query.get("alt") != ["media"] else method.lower()
    return Request(method, kind, key, text)


_CLASSIFY = {"s3": _classify_s3, "azure": _classify_azure, "gcs": _classify_gcs}
