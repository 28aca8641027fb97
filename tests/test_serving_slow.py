"""Clients that send slowly, or nothing, do not keep others from being served."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress

import pytest

pytest.importorskip("grpc")
pytest.importorskip("requests")
pytest.importorskip("uvicorn")

import grpc
import requests

import xee_tf
from xee_tf.serving import connections, rest

HEAD = b"POST /v1/models/slow:predict HTTP/1.1\r\nHost: x\r\n"
LENGTH = HEAD + b"Content-Length: 100000\r\n\r\n{", b" "
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n \r\n"


@pytest.fixture
def connect():
    """Yield a function that connects to a server and sends the beginning of a request."""
    with ExitStack() as stack:

        def connect(server, data=b""):
            address = server.url.removeprefix("http://").split(":")
            connection = stack.enter_context(socket.create_connection(address, timeout=10))
            connection.sendall(data)
            return connection

        yield connect


def predict(server):
    address = f"{server}/v1/models/slow:predict"
    return requests.post(address, json={"instances": [0]}, timeout=30).status_code


def is_closed(connection):
    try:
        return connection.recv(1000) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(("begin", "part"), [LENGTH, CHUNKED])
def test_slow_bodies_make_way(connect, served_models, monkeypatch, begin, part):
    monkeypatch.setattr(rest, "SLOW_SECONDS", 0.2)
    with xee_tf.serve(served_models, max_concurrency=2, grace=0) as server:
        slow = [connect(server, begin) for _ in range(2)]
        for _ in range(4):
            time.sleep(0.1)
            for connection in slow:
                connection.sendall(part)
        assert [predict(server) for _ in range(5)] == [200] * 5
        assert slow[0].recv(1000).startswith(b"HTTP/1.1 408 ")


def test_bodies_that_arrive_in_time_are_not_dropped(connect, served_models):
    with xee_tf.serve(served_models, max_concurrency=1) as server:
        connection = connect(server, HEAD + b"Content-Length: 18\r\n\r\n{")
        time.sleep(0.1)
        assert predict(server) == 429
        connection.sendall(b'"instances": [0]}')
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begin", [b"", HEAD])
def test_connections_without_request_are_closed(connect, served_models, monkeypatch, begin):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    with xee_tf.serve(served_models) as server:
        connection = connect(server, begin)
        stop = threading.Event()

        def trickle():
            while begin and not stop.wait(0.1):
                try:
                    connection.sendall(b"X: y\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        start = time.monotonic()
        assert is_closed(connection)
        assert time.monotonic() - start > 0.3
        stop.set()
        thread.join()


def test_connections_of_a_client_are_limited(connect, served_models, monkeypatch):
    monkeypatch.setattr(connections, "_CONNECTIONS", 10)
    with xee_tf.serve(served_models, max_concurrency=2) as server:
        waiting = [connect(server) for _ in range(30)]
        assert predict(server) == 200
        assert all(is_closed(connection) for connection in waiting[:20])


def test_headers_are_limited(connect, served_models):
    with xee_tf.serve(served_models) as server:
        connection = connect(server, HEAD + b"X: ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 50_000_000:
                connection.sendall(b"x" * 100_000)
                sent += 100_000
        assert sent < 50_000_000
        assert predict(server) == 200


def test_grpc_calls_without_message_do_not_block_http(served_models):
    done = threading.Event()

    def nothing():
        done.wait(30)
        yield from ()

    with xee_tf.serve(served_models, max_concurrency=1) as server, grpc.insecure_channel(server.grpc) as rpc:
        call = rpc.stream_unary("/tensorflow.serving.PredictionService/Predict").future(nothing())
        time.sleep(0.3)
        assert predict(server) == 200
        call.cancel()
        done.set()
