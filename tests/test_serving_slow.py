"""Clients that send slowly, or nothing, do not keep others from being served."""

from __future__ import annotations

import gzip
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

pytest.importorskip("grpc")
pytest.importorskip("requests")
pytest.importorskip("uvicorn")

import grpc
import numpy as np
import requests

import xee_tf
from tests.waiting import wait_until
from xee_tf.remote.payloads import ServedModel
from xee_tf.remote.payloads.predict_messages import encode_predict_request
from xee_tf.serving import grpc_service, limits, waiting
from xee_tf.serving.models import Models

HEAD = b"POST /v1/models/slow:predict HTTP/1.1\r\nHost: x\r\n"
LENGTH = HEAD + b"Content-Length: 100000\r\n\r\n{", b" "
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n \r\n"


@pytest.fixture
def connect():
    """Yield a function that connects to a server and sends the beginning of a request."""
    with ExitStack() as stack:

        def connect(server, data=b"", port=None):
            address = (port or server.url.removeprefix("http://")).split(":")
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
def test_slow_bodies_do_not_keep_others_out(connect, served_models, begin, part):
    with xee_tf.serve(served_models, max_concurrency=2, grace=0) as server:
        slow = [connect(server, begin) for _ in range(20)]
        for _ in range(4):
            assert [predict(server) for _ in range(5)] == [200] * 5
            for connection in slow:
                connection.sendall(part)


@pytest.mark.parametrize("zeros", [0, 1 << 20])
def test_slow_bodies_are_rejected(connect, served_models, monkeypatch, zeros):
    """Also those whose first megabyte was fast: it does not compensate for pauses."""
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.5)
    with xee_tf.serve(served_models, grace=0) as server:
        connection = connect(server, HEAD + b"Content-Length: 5000000\r\n\r\n" + bytes(zeros))
        start = time.monotonic()
        while not select.select([connection], [], [], 0.1)[0]:
            connection.sendall(b" ")
            assert time.monotonic() - start < 10
        assert time.monotonic() - start > 0.3
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_bodies_at_the_minimum_rate_are_not_rejected(connect, served_models, monkeypatch):
    monkeypatch.setattr(limits, "BODY_SECONDS", 1.5)
    with xee_tf.serve(served_models, grace=0) as server:
        connection = connect(server, HEAD + b"Content-Length: 40018\r\n\r\n")
        for _ in range(20):
            connection.sendall(b" " * 2000)
            time.sleep(0.15)
        connection.sendall(b'{"instances": [0]}')
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_slow_bodies_leave_memory_to_others(connect, served_models, monkeypatch):
    monkeypatch.setattr(limits, "HELD_BYTES", 0)
    monkeypatch.setattr(limits, "SLOW_SECONDS", 0.4)
    head = HEAD + b"Content-Length: 900\r\n\r\n"
    with xee_tf.serve(served_models, max_request_bytes=1000, grace=0) as server:
        slow = [connect(server, head + b" " * 890) for _ in range(2)]  # of 2,000 bytes
        wait_until(lambda: predict_by_grpc(server, size=100) == "OK", 5)
        [rejected, *_] = select.select(slow, [], [], 10)[0]
        assert rejected.recv(1000).startswith(b"HTTP/1.1 408 ")
        for connection in slow:
            connection.close()
        few = connect(server, head + b" " * 890)  # less than half of the memory
        time.sleep(1)
        few.sendall(b"not JSON  ")
        assert few.recv(1000).startswith(b"HTTP/1.1 400 ")


def stall(server, monkeypatch, seconds):
    """Keep the event loop of a server busy for a while; return the thread that waits for it."""
    monkeypatch.setattr(Models, "names", property(lambda models: time.sleep(seconds)))
    thread = threading.Thread(target=requests.get, args=(f"{server}/health",), kwargs={"timeout": 30})
    thread.start()
    time.sleep(0.1)
    return thread


@pytest.mark.parametrize("scarce", [False, True])
def test_bodies_are_not_late_when_the_server_is(connect, served_models, monkeypatch, scarce):
    monkeypatch.setattr(limits, "SLOW_SECONDS", 1.0)
    if scarce:
        monkeypatch.setattr(limits, "HELD_BYTES", 0)
    else:
        monkeypatch.setattr(limits, "BODY_SECONDS", 1.0)
    with xee_tf.serve(served_models, max_request_bytes=1_000_000, grace=0) as server:
        size = 600_000
        steady = [connect(server, HEAD + b"Content-Length: 800000\r\n\r\n" + b" " * size) for _ in range(2)]
        time.sleep(0.2)
        thread = stall(server, monkeypatch, 2.5)
        while size < 800_000:
            for connection in steady:
                connection.sendall(b" " * 10_000)
            size += 10_000
            time.sleep(0.2)
        for connection in steady:
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")  # not JSON
        thread.join()


def test_the_clock_stands_still_while_the_server_is_late(monkeypatch):
    monkeypatch.setattr(limits, "SLOW_SECONDS", 0.8)
    clock = limits.PatientClock()
    start = clock.time()
    for pause in (0.1, 0.7, 0.1):
        assert clock.tick() == 0.2
        begin = clock.time()
        time.sleep(pause)
        assert clock.time() - begin <= 0.2 + 1e-6
    assert clock.time() - start >= 0.4 - 1e-6


@pytest.mark.parametrize("begin", [b"", HEAD])
def test_connections_without_request_are_closed(connect, served_models, monkeypatch, begin):
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.5)
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


@pytest.mark.parametrize("begin", [b"", HEAD, LENGTH[0]])
def test_connections_of_a_client_are_limited(connect, served_models, monkeypatch, begin):
    monkeypatch.setattr(limits, "WAITING", 10)
    monkeypatch.setattr(limits, "SLOW_SECONDS", 0.3)
    with xee_tf.serve(served_models, max_concurrency=2) as server:
        waiting = [connect(server, begin) for _ in range(30)]
        assert predict(server) == 200
        assert all(is_closed(connection) for connection in waiting[:10])
        time.sleep(0.5)
        assert predict(server) == 200
        assert all(is_closed(connection) for connection in waiting[:20])


def test_many_connections_of_a_client_are_not_closed_while_they_are_used(served_models, monkeypatch):
    monkeypatch.setattr(limits, "WAITING", 10)
    with xee_tf.serve(served_models, max_concurrency=5) as server, ThreadPoolExecutor(18) as pool:
        sessions = [requests.Session() for _ in range(18)]

        def ask(session):
            found = []
            for _ in range(50):
                response = session.get(f"{server}/health", timeout=30)
                found.append((response.status_code, response.headers.get("Connection")))
            return found

        found = [each for part in pool.map(ask, sessions) for each in part]
        assert {status for status, _ in found} == {200}
        assert {header for _, header in found} == {None, "close"}


def test_idle_connections_are_kept_for_a_while(connect, served_models, monkeypatch):
    """Longer than one whose first request does not arrive."""
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.5)
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with xee_tf.serve(served_models) as server:
        connection = connect(server)
        for _ in range(3):
            connection.sendall(request)
            found = b""
            while not found.endswith(b"}"):
                found += connection.recv(1000) or b"closed}"
            assert found.startswith(b"HTTP/1.1 200 ")
            time.sleep(1)
        connection.sendall(request[:9])  # slow headers are not idle
        start = time.monotonic()
        assert is_closed(connection)
        assert 0.3 < time.monotonic() - start < 5


def begin_to_read(connect, server):
    """Return a connection to a server, and the beginning of a response of several megabytes."""
    body = b'{"signature_name": "less", "inputs": {"n": [%s]}}' % b",".join([b"1000000000000"] * 400_000)
    head = b"POST /v1/models/scaled:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    connection = connect(server)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connection.sendall(head + body)
    return connection, connection.recv(1 << 16)


def test_connections_are_idle_from_when_the_response_is_read(connect, served_models, monkeypatch):
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 1.0)
    with xee_tf.serve(served_models, grace=0) as server:
        connection, found = begin_to_read(connect, server)
        time.sleep(1.5)
        while not found.endswith(b"}"):
            found += connection.recv(1 << 16)
        start = time.monotonic()
        assert is_closed(connection)
        assert 0.5 < time.monotonic() - start < 5


def test_responses_are_read_before_others_are_sent(connect, served_models, monkeypatch):
    monkeypatch.setattr(limits, "READ_SECONDS", 3.0)
    with xee_tf.serve(served_models, grace=0) as server:
        connection, found = begin_to_read(connect, server)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(5)
        with suppress(ConnectionError):
            while part := connection.recv(1 << 16):
                found += part
        assert found.startswith(b"HTTP/1.1 200 ")
        assert found.count(b"HTTP/1.1") == 1


def test_only_headers_are_limited(connect, served_models):
    """Not the bodies and other requests before them."""
    get = b"GET /health HTTP/1.1\r\nHost: x\r\n"
    many = (get + b"\r\n") * 3000
    with xee_tf.serve(served_models) as server:
        for size in range(100_000, 600_000, 50_000):
            connection = connect(server)
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % size + b" " * size + get)
            time.sleep(0.05)
            connection.sendall(b"\r\n")
            found = b""
            while found.count(b"HTTP/1.1") < 2:
                found += connection.recv(1000) or b"HTTP/1.1 closed"
            assert b"HTTP/1.1 400 " in found
            assert b"HTTP/1.1 200 " in found
        connection = connect(server)
        connection.sendall(many + get)
        time.sleep(0.2)
        connection.sendall(b"Connection: close\r\n\r\n")
        found = b""
        while part := connection.recv(1 << 16):
            found += part
        assert found.count(b"HTTP/1.1 200 ") == 3001


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


# -- gRPC --------------------------------------------------------------------------------------------

PREDICT = "/tensorflow.serving.PredictionService/Predict"


def http2_frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def half_a_call():
    """The bytes of a call with the beginning of its message."""
    headers = {":method": "POST", ":scheme": "http", ":path": PREDICT, ":authority": "x", "te": "trailers"}
    headers["content-type"] = "application/grpc"
    block = b"".join(
        b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in header) for header in headers.items()
    )
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + http2_frame(4, 0, 0, b"")
        + http2_frame(1, 4, 1, block)
        + http2_frame(0, 0, 1, b"\0" + (1000).to_bytes(4, "big") + b"half")
    )


def predict_by_grpc(server, size=0):
    message = encode_predict_request({"seconds": np.zeros(1 + size, "f4")}, ServedModel("slow"))
    with grpc.insecure_channel(server.grpc) as channel:
        try:
            channel.unary_unary(PREDICT)(message, timeout=30)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


@pytest.fixture
def begin_calls():
    """Yield a function that begins gRPC calls without a message, or with half of one, and returns them."""
    done = threading.Event()

    def nothing():
        done.wait(30)
        yield from ()

    with ExitStack() as stack:
        stack.callback(done.set)

        def begin(server, count, half=False):
            if half:
                host, port = server.grpc.split(":")
                calls = [
                    stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
                    for _ in range(count)
                ]
                for each in calls:
                    each.sendall(half_a_call())
                return calls
            channel = stack.enter_context(grpc.insecure_channel(server.grpc))
            return [channel.stream_unary(PREDICT).future(nothing()) for _ in range(count)]

        yield begin


def test_grpc_calls_without_whole_message_are_ended(begin_calls, served_models, monkeypatch):
    monkeypatch.setattr(limits, "MESSAGE_SECONDS", 1.0)
    with xee_tf.serve(served_models, max_concurrency=2, grace=0) as server:
        [call] = begin_calls(server, 1)
        begin_calls(server, 1, half=True)
        assert predict_by_grpc(server) == "OK"
        error = call.exception(timeout=10)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.details() == "The message did not arrive within 1 seconds."
        assert predict_by_grpc(server) == "OK"


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("max_concurrency", [1, 16])
def test_grpc_calls_without_message_do_not_keep_others_out(begin_calls, served_models, max_concurrency, half):
    with xee_tf.serve(served_models, max_concurrency=max_concurrency, grace=0) as server:
        calls = begin_calls(server, 40, half)
        end = time.monotonic() + 4
        while time.monotonic() < end:
            start = time.monotonic()
            assert predict_by_grpc(server) == "OK"
            assert predict(server) == 200
            assert time.monotonic() - start < 2
            time.sleep(0.2)
        if not half:  # those that are slow, except some, have made way for others
            ended = [call for call in calls if call.done()]
            assert len(ended) == 40 - max_concurrency
            assert {call.exception().code() for call in ended} == {grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_more_grpc_calls_than_can_wait(begin_calls, served_models, monkeypatch):
    monkeypatch.setattr(limits, "WAITING", 30)
    with xee_tf.serve(served_models, max_concurrency=3, grace=0) as server:
        calls = begin_calls(server, 200)
        wait_until(lambda: sum(call.done() for call in calls) >= 170)
        assert predict_by_grpc(server) == "OK"
        wait_until(lambda: sum(call.done() for call in calls) >= 197)
        assert predict_by_grpc(server) == "OK"


def test_idle_grpc_connections_leave_files_for_http(connect, served_models, monkeypatch):
    monkeypatch.setattr(grpc_service, "_CONNECTIONS", 20)
    with xee_tf.serve(served_models, grace=0) as server:
        for _ in range(60):
            connect(server, port=server.grpc)
        wait_until(lambda: predict_by_grpc(server) == "UNAVAILABLE")
        assert predict(server) == 200
        wait_until(lambda: predict_by_grpc(server) == "OK")  # connections without a call are closed


class Call:
    """The context of a call, from an address."""

    def __init__(self, peer):
        self._peer, self._rpc_event = peer, self
        self.call, self.ended = self, []

    def peer(self):
        return self._peer

    def cancel(self, *status):
        self.ended.append(status)


def test_the_client_with_the_most_grpc_calls_makes_way(monkeypatch):
    monkeypatch.setattr(limits, "WAITING", 4)
    begin, arrive = threading.Semaphore(0), threading.Event()

    def message():
        begin.release()
        arrive.wait(30)
        yield b"message"

    calls = waiting.WaitingCalls(2)
    peers = ["ipv4:10.0.0.1:1", "ipv6:[::1]:1", "ipv6:[::1]:2", "ipv4:10.0.0.1:2", "ipv6:[::1]:3"]
    contexts = [Call(peer) for peer in peers]
    threads = [threading.Thread(target=calls.receive, args=(message(), each)) for each in contexts]
    for thread in threads:
        thread.start()
        assert begin.acquire(timeout=10)
    arrive.set()
    for thread in threads:
        thread.join()
    assert [len(each.ended) for each in contexts] == [0, 1, 0, 0, 0]


def test_grpc_calls_are_not_slow_when_the_server_is(monkeypatch):
    monkeypatch.setattr(limits, "SLOW_SECONDS", 0.4)
    monkeypatch.setattr(limits, "MESSAGE_SECONDS", 0.8)
    arrive = threading.Event()

    def message():
        arrive.wait(30)
        yield b"message"

    calls, contexts = waiting.WaitingCalls(1), [Call(f"ipv4:10.0.0.{number}:1") for number in range(3)]
    threads = [threading.Thread(target=calls.receive, args=(message(), each)) for each in contexts]
    for thread in threads:
        thread.start()
    time.sleep(1.5)  # the thread that ends slow calls is late
    for _ in range(2):
        calls._end_slow()
    assert [each.ended for each in contexts] == [[]] * 3
    with calls.watched():
        wait_until(lambda: all(each.ended for each in contexts))
    arrive.set()
    for thread in threads:
        thread.join()


def test_grpc_calls_without_message_are_refused(served_models):
    with xee_tf.serve(served_models) as server, grpc.insecure_channel(server.grpc) as channel:
        with pytest.raises(grpc.RpcError, match="The call has no message"):
            channel.stream_unary(PREDICT)(iter(()), timeout=10)
        assert predict_by_grpc(server) == "OK"


# -- Memory ------------------------------------------------------------------------------------------


def predict_zipped(server):
    body = gzip.compress(b'{"instances": [0]}' + b" " * 300)
    address, headers = f"{server}/v1/models/slow:predict", {"Content-Encoding": "gzip"}
    return requests.post(address, body, headers=headers, timeout=30).status_code


def test_all_requests_together_are_limited(connect, served_models, monkeypatch):
    monkeypatch.setattr(limits, "HELD_BYTES", 0)
    monkeypatch.setattr(limits, "SLOW_SECONDS", 60)
    head = HEAD + b"Content-Length: 900\r\n\r\n"
    with xee_tf.serve(served_models, max_request_bytes=1000) as server:
        begun = [connect(server, head + b" " * 890) for _ in range(2)]  # of 2,000 bytes

        time.sleep(0.3)
        response = connect(server, head + b" " * 890).recv(1000)
        assert response.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1" in response.lower()
        assert predict_zipped(server) == 429
        assert predict_by_grpc(server, size=100) == "RESOURCE_EXHAUSTED"
        assert predict(server) == 200
        for connection in begun:
            connection.sendall(b"not JSON  ")
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
        assert predict_zipped(server) == 200
        assert predict_by_grpc(server, size=100) == "OK"


@pytest.mark.long
@pytest.mark.parametrize(("reads", "close"), [(True, b""), (False, b""), (False, b"Connection: close\r\n")])
def test_responses_are_kept_while_they_are_read(connect, served_models, monkeypatch, reads, close):
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.2)
    monkeypatch.setattr(limits, "READ_SECONDS", 2.0)
    numbers = b",".join([b"1000000000000"] * 400_000)
    body = b'{"signature_name": "less", "inputs": {"n": [%s]}}' % numbers
    head = b"POST /v1/models/scaled:predict HTTP/1.1\r\nHost: x\r\n" + close
    with xee_tf.serve(served_models, grace=0) as server:
        connection = connect(server)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sendall(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        found = connection.recv(1 << 16)
        if not reads:
            time.sleep(4)
        with suppress(ConnectionError):
            while part := connection.recv(1 << 16):
                found += part
                time.sleep(0.02)
        assert found.startswith(b"HTTP/1.1 200 ")
        assert found.endswith(b"}") == reads


@pytest.mark.parametrize("begin", [LENGTH[0], CHUNKED[0], HEAD, b""])
def test_half_requests_do_not_delay_the_end(connect, served_models, begin, caplog):
    with xee_tf.serve(served_models, grace=30) as server:
        assert predict(server) == 200
        half = connect(server, begin)
        time.sleep(0.2)
        start = time.monotonic()
        server.close()
        assert time.monotonic() - start < 10
        assert is_closed(half)
    assert not caplog.records


def test_request_that_still_arrives_is_completed_at_the_end(connect, served_models, caplog):
    body = b'{"instances": [0]}'
    with xee_tf.serve(served_models, grace=30) as server, ThreadPoolExecutor(1) as pool:
        head = HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode()
        connection = connect(server, head + body[:5])
        time.sleep(0.2)
        closing = pool.submit(server.close)
        time.sleep(0.5)
        connection.sendall(body[5:])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        closing.result(10)
    assert not caplog.records


def test_calls_without_message_do_not_delay_the_end(begin_calls, served_models):
    with xee_tf.serve(served_models, grace=30) as server:
        begin_calls(server, 3)
        assert predict_by_grpc(server) == "OK"
        start = time.monotonic()
        server.close()
        assert time.monotonic() - start < 10
