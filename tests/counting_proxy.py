"""A proxy in front of an S3 server that counts requests and bytes, and disturbs requests."""

from __future__ import annotations

import http.client
import http.server
import os
import re
import signal
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.kill_points import Point, run_in_child

__all__ = ["Bucket", "Call", "CountingProxy", "Error", "Kill", "Request", "request_points", "s3_server"]


@dataclass
class Request:
    """A request that was made: its kind, its key, and the bytes of objects that it moved.

    The kinds are "get", "head", "put", "copy", "delete", "list" and "bucket", and for multipart uploads
    "begin", "part", "copy part", "complete", "abort", "list uploads" and "list parts".
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
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
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
        request = _classify(self.command, self.path, self.headers)
        if self.command in ("PUT", "POST") and request.kind in ("put", "part"):
            request.up = int(self.headers.get("x-amz-decoded-content-length", len(body)))
        disturbance = proxy._note(request)
        if isinstance(disturbance, Error):
            request.status = disturbance.status
            return self._respond(disturbance.status, {"Content-Type": "application/xml"}, _xml(disturbance))
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
        source = "/" + self.headers["x-amz-copy-source"].partition("?")[0].lstrip("/")
        names = {"Host": self.server.upstream, "Authorization": self.headers["Authorization"]}
        _, headers, _ = self._ask("HEAD", source, names)
        return int(headers.get("Content-Length", 0))

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


def _xml(error: Error) -> bytes:
    text = f"<Code>{error.code}</Code><Message>{error.code} on purpose</Message>"
    return f"<?xml version='1.0'?><Error>{text}</Error>".encode()


def _classify(method: str, path: str, headers: Any) -> Request:
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    kind = _kind(method, key, query, "x-amz-copy-source" in headers)
    return Request(method, kind, f"{bucket}/{key}", unquote(parts.query))


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


# -- Servers and buckets -------------------------------------------------------------------------------


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a local S3 server; yield its URL."""
    from moto.server import ThreadedMotoServer

    before = os.environ.get("AWS_DEFAULT_REGION")
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        if before is None:
            del os.environ["AWS_DEFAULT_REGION"]
        else:
            os.environ["AWS_DEFAULT_REGION"] = before


@dataclass
class Bucket:
    """A bucket of a local S3 server behind a proxy.

    Parameters
    ----------
    name : str
        Name of the bucket.
    proxy : CountingProxy
        The proxy.
    upstream : str
        URL of the server, for requests that are not counted.
    """

    name: str
    proxy: CountingProxy
    upstream: str
    client: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        import boto3

        keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        self.client = boto3.client("s3", endpoint_url=self.upstream, **keys)
        self.client.create_bucket(Bucket=self.name)

    @property
    def url(self) -> str:
        """URL of the bucket."""
        return f"s3://{self.name}"

    @property
    def options(self) -> dict[str, Any]:
        """Storage options that use the proxy."""
        return {"key": "id", "secret": "secret", "endpoint_url": self.proxy.url}

    def read(self) -> dict[str, bytes]:
        """Return the content of all objects."""
        return {key: self.client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in self.etags()}

    def etags(self) -> dict[str, str]:
        """Return the keys and ETags of all objects, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {found["Key"]: found["ETag"] for page in pages for found in page.get("Contents", ())}

    def uploads(self) -> list[str]:
        """Return the keys of multipart uploads that were neither completed nor aborted."""
        return [upload["Key"] for upload in self._uploads()]

    def _uploads(self) -> list[dict[str, Any]]:
        return list(self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ()))

    def restore(self, objects: dict[str, bytes]) -> None:
        """Make these the objects of the bucket, and abort multipart uploads."""
        for upload in self._uploads():
            self.client.abort_multipart_upload(
                Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        found = self.read()
        for key in found.keys() - objects.keys():
            self.client.delete_object(Bucket=self.name, Key=key)
        for key, data in objects.items():
            if found.get(key) != data:
                self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def destroy(self) -> None:
        """Delete the bucket with its objects."""
        self.restore({})
        self.client.delete_bucket(Bucket=self.name)


def request_points(
    work: Callable[[], object],
    bucket: Bucket,
    disturbance: Error | str | None = None,
    *,
    lasting: bool = True,
    first: int = 1,
    step: int = 1,
) -> Iterator[Point]:
    """Run `work` again and again in a new process, and disturb its change 1, 2, 3, ... of a bucket.

    Before each run the bucket is restored to its state of the first call. The last point is that of the run
    that ended undisturbed. See `tests.kill_points.kill_points`, which does the same for folders.

    Parameters
    ----------
    work : callable
        Any function that `cloudpickle` can pickle; it writes to ``bucket.url`` with ``bucket.options``.
    bucket : Bucket
        The bucket.
    disturbance : Error or str, optional
        What happens to the request. By default the process is killed.
    lasting : bool
        Whether all later requests that change something are disturbed too.
    first, step : int
        The numbers are `first`, ``first + step``, ...
    """
    proxy, objects, number = bucket.proxy, bucket.read(), first
    try:
        while True:
            bucket.restore(objects)
            proxy.reset()
            kill = Kill()
            proxy.disturb(number, disturbance or kill, lasting=lasting)

            def started(pid: int, kill: Kill = kill) -> None:
                kill.pid = pid

            point = run_in_child(work, Path(os.devnull), started=started)
            changes = [f"{each.kind} {each.key}" for each in proxy.log if each.is_change]
            disturbed = proxy.was_disturbed
            proxy.disturb(1, DROP, matching=lambda request: False)
            yield Point(number, point.folder, changes, disturbed, point.error)
            if not disturbed:
                return
            number += step
    finally:
        proxy.reset()
