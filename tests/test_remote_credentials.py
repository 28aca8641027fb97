"""Credentials: found in each process, sent only to their server, and never shown or pickled."""

from __future__ import annotations

import pytest

pytest.importorskip("cryptography")

import base64
import codecs
import datetime
import ipaddress
import json
import logging
import pickle
import random
import socketserver
import ssl
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any

import cloudpickle
import xarray as xr
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from distributed import Client, LocalCluster

import xee_tf
from tests.connector_conformance import assert_same, batch_of, in_numpy, in_tensorflow
from tests.faults import FaultProxy, Status, grpc_faults
from tests.optional import optional
from xee_tf.connector import Connector, connected
from xee_tf.errors import ModelError, PredictionError
from xee_tf.remote.masking import Secrets
from xee_tf.serving.server import Server, serve

grpc = optional("grpc")

TOKEN = "ya29.throw-away-token-of-a-test"
ENDPOINT = "projects/forest/locations/us-central1/endpoints/known"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(in_tensorflow(tmp_path_factory.mktemp("models") / "known")) as server:
        yield server


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer(socketserver.ThreadingTCPServer):
    """A server that issues tokens; `response` is its response."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _IssuerHandler)
        self.requests = 0
        self.response: tuple[int, dict[str, Any]] = (200, {"access_token": TOKEN, "expires_in": 3600})


class _IssuerHandler(BaseHTTPRequestHandler):
    server: Issuer

    def do_POST(self) -> None:
        self.server.requests += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        code, response = self.server.response
        body = json.dumps({"token_type": "Bearer", **response}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def issuer(key: rsa.RSAPrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """Application default credentials of a fictitious service account."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    with Issuer() as issuer:
        Thread(target=issuer.serve_forever, args=(0.02,), daemon=True).start()
        account = {
            "type": "service_account",
            "project_id": "forest",
            "private_key_id": "1",
            "private_key": private,
            "client_email": "tester@forest.test",
            "token_uri": f"http://127.0.0.1:{issuer.server_address[1]}/token",
        }
        file = tmp_path / "account.json"
        file.write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        yield issuer
        issuer.shutdown()


def vertex_ai(url: str, **options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_vertex_ai(ENDPOINT, base_url=url, payload_format="GRPC_TF_TENSORS", **options)


def predict(model: xee_tf.Model) -> None:
    assert_same(connected(model.connector).predict(batch_of(3)), in_numpy(batch_of(3)))


def assert_secret(text: str | bytes) -> None:
    """Check that a text contains neither the token nor the key."""
    data = text.encode() if isinstance(text, str) else text
    assert TOKEN.encode() not in data
    assert b"PRIVATE KEY" not in data


def test_token_is_sent_only_to_the_server(
    server: Server, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = Status(403, b'{"error": {"code": 403, "message": "Bearer ' + TOKEN.encode() + b' may not"}}')
    with FaultProxy(server.url) as proxy:
        model = vertex_ai(proxy.url, route="rawPredict")
        for _ in range(3):
            predict(model)
        assert issuer.requests == 1  # the token is kept until it expires
        assert {headers["Authorization"] for headers in proxy.headers} == {f"Bearer {TOKEN}"}
        proxy.faults.append(echo)
        with pytest.raises(PredictionError, match=r"HTTP 403.*may not") as caught:
            predict(model)
        for text in (
            repr(model),
            model._repr_html_(),
            repr(model.connector),
            repr(connected(model.connector)),
            repr(vars(connected(model.connector))),
            repr(model.stats()),
            str(caught.value),
            repr(caught.value),
            caplog.text,
            pickle.dumps(model),
            cloudpickle.dumps(model),
            pickle.dumps(caught.value),
        ):
            assert_secret(text)
        assert caplog.records
        with pytest.raises(TypeError):
            pickle.dumps(connected(model.connector))


def test_graph_contains_no_secret(server: Server, issuer: Issuer) -> None:
    rasters = batch_of(1, height=16, width=16)
    grid = {"y": [-30.0 * row for row in range(16)], "x": [30.0 * column for column in range(16)]}
    image = xr.Dataset(
        {"a": (("y", "x"), rasters["a"][0, ..., 0]), "b": (("y", "x", "c"), rasters["b"][0])}, grid
    ).rio.write_crs("EPSG:32633")
    model = vertex_ai(
        server.url,
        route="rawPredict",
        input_shapes={"b": [2]},
        input_tile_size=8,
        output_bands={"box": "float32", "count": "int32"},
    )
    lazy = model.predict_image(image.chunk(y=8))
    assert issuer.requests == 0  # building the graph needs no token
    assert_secret(cloudpickle.dumps(dict(lazy.__dask_graph__())))
    assert lazy.box.shape == (16, 16)
    lazy.compute()
    assert issuer.requests == 1
    assert_secret(cloudpickle.dumps(dict(lazy.__dask_graph__())))


def test_token_is_sent_over_grpc(server: Server, issuer: Issuer) -> None:
    denied = (grpc.StatusCode.PERMISSION_DENIED, f"Bearer {TOKEN} may not")
    with grpc_faults(server.grpc) as (address, handler):
        model = vertex_ai(f"http://{address}")
        predict(model)
        handler.faults.append(denied)
        with pytest.raises(PredictionError, match=r"PERMISSION_DENIED.*roles/aiplatform\.user") as caught:
            predict(model)
        assert_secret(str(caught.value))
        [first, _] = handler.metadata
        assert first["authorization"] == f"Bearer {TOKEN}"
        assert first["x-vertex-ai-endpoint-id"] == "known"


def _predict(connector: Connector) -> dict[str, Any]:
    return connected(connector).predict(batch_of(3))


def test_workers_find_their_own_credentials(server: Server, issuer: Issuer) -> None:
    with FaultProxy(server.url) as proxy:
        model = vertex_ai(proxy.url, route="rawPredict")
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
            ) as cluster,
            Client(cluster) as client,
        ):
            assert_same(client.submit(_predict, model.connector).result(), in_numpy(batch_of(3)))
            assert model.stats().instances == 3
        assert proxy.headers[0]["Authorization"] == f"Bearer {TOKEN}"
        assert issuer.requests == 1


@pytest.mark.parametrize("code", [401, 403])
def test_rejected_requests_have_advice(server: Server, issuer: Issuer, code: int) -> None:
    denied = Status(code, b'{"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}')
    cases = [
        (lambda url: vertex_ai(url, route="rawPredict"), r"aiplatform\.endpoints\.predict.*'forest'.*roles/"),
        (lambda url: vertex_ai(url, route="rawPredict", credentials=None), "credentials=None"),
        (lambda url: xee_tf.Model.from_tf_serving(url, "known"), "credentials='google'"),
        (lambda url: xee_tf.Model.from_tf_serving(url, "known", credentials="google"), "has no access"),
        (
            lambda url: xee_tf.Model.from_ai_platform_predictor(
                "forest", "known", base_url=url, credentials="google"
            ),
            r"ml\.versions\.predict.*'forest'.*roles/ml\.modelUser",
        ),
    ]
    for make, message in cases:
        with FaultProxy(server.url, (denied,)) as proxy:
            with pytest.raises(PredictionError, match=f"HTTP {code}.*: denied.*{message}"):
                predict(make(proxy.url))
            assert len(proxy.bodies) == 1


def test_missing_credentials(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nowhere.json"))
    with pytest.raises(ModelError, match=r"Google credentials not found.*gcloud auth.*credentials=None"):
        connected(vertex_ai(server.url, route="rawPredict", timeout=58).connector)


def test_credentials_that_cannot_be_refreshed(server: Server, issuer: Issuer) -> None:
    secret = {"error": "invalid_grant", "error_description": "Account deleted", "assertion": TOKEN}
    issuer.response = (400, secret)
    with FaultProxy(server.url) as proxy:
        model = vertex_ai(proxy.url, route="rawPredict")
        with pytest.raises(PredictionError, match=r"could not be refreshed.*Account deleted") as caught:
            predict(model)
        assert_secret(str(caught.value))
        assert not proxy.bodies
        issuer.response = (200, {"access_token": TOKEN, "expires_in": 3600})
        predict(model)


def test_expired_token_is_refreshed(server: Server, issuer: Issuer) -> None:
    issuer.response = (200, {"access_token": TOKEN, "expires_in": 1})
    with FaultProxy(server.url) as proxy:
        model = vertex_ai(proxy.url, route="rawPredict")
        predict(model)
        issuer.response = (200, {"access_token": TOKEN + "2", "expires_in": 3600})
        predict(model)
        assert [headers["Authorization"][-1] for headers in proxy.headers] == [TOKEN[-1], "2"]


def test_netrc_passwords_are_not_sent(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with FaultProxy(server.url) as proxy:
        predict(vertex_ai(proxy.url, route="rawPredict", credentials=None))
        assert proxy.headers[0]["Authorization"] is None


def test_redirects_are_not_followed(server: Server, issuer: Issuer) -> None:
    with FaultProxy(server.url) as other:
        redirect = Status(307, b"", {"Location": f"{other.url}/v1/{ENDPOINT}:rawPredict"})
        with FaultProxy(server.url, (redirect,)) as proxy:
            with pytest.raises(PredictionError, match=r"HTTP 307.*redirects to 127\.0\.0\.1"):
                predict(vertex_ai(proxy.url, route="rawPredict"))
            assert not other.headers


class _Listener(socketserver.ThreadingTCPServer):
    """A proxy that counts its connections, and closes them."""

    allow_reuse_address = daemon_threads = True
    connections = 0

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1


@pytest.fixture
def proxy_of_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Listener]:
    with _Listener(("127.0.0.1", 0), socketserver.BaseRequestHandler) as listener:
        Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{listener.server_address[1]}")
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield listener
        listener.shutdown()


def test_token_is_not_sent_to_proxies(
    server: Server, issuer: Issuer, proxy_of_environment: _Listener
) -> None:
    predict(vertex_ai(server.url, route="rawPredict"))
    predict(vertex_ai(f"http://{server.grpc}"))
    assert issuer.requests  # the token that is issued is not sent to the proxy either
    assert proxy_of_environment.connections == 0


def test_proxies_are_used_for_other_requests(server: Server, proxy_of_environment: _Listener) -> None:
    from xee_tf.remote.sessions import DirectSession

    with pytest.raises(PredictionError, match="no response"):
        predict(vertex_ai(server.url, route="rawPredict", credentials=None, deadline=0.5))
    assert proxy_of_environment.connections
    session = DirectSession()
    assert session.merge_environment_settings("https://models.example.org", {}, None, None, None)["proxies"]
    assert not session.merge_environment_settings("http://metadata", {}, None, None, None)["proxies"]


ENCODED: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "upper case": str.upper,
    "reversed": lambda text: text[::-1],
    "lines": lambda text: "\n".join(text[start : start + 9] for start in range(0, len(text), 9)),
    "list of letters": lambda text: json.dumps(list(text)),
    "list of codes": lambda text: json.dumps(list(text.encode())),
    "JSON escapes": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "two JSON escapes": lambda text: json.dumps("".join(f"\\u{ord(letter):04x}" for letter in text)),
    "HTML": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "percent": lambda text: "".join(f"%{ord(letter):02X}" for letter in text),
    "some percent": lambda text: text.replace("e", "%65").replace("-", "%2D"),
    "twice percent": lambda text: "".join(f"%25{ord(letter):02x}" for letter in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a header": lambda text: base64.urlsafe_b64encode(f"auth: {text}".encode()).decode(),
    "twice base64": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "base64 reversed": lambda text: base64.b64encode(text.encode()).decode()[::-1],
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "base85": lambda text: base64.b85encode(text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal bytes": lambda text: " ".join(f"0x{code:02X}" for code in text.encode()),
    "hexadecimal base64": lambda text: base64.b64encode(text.encode()).hex(),
    "octal": lambda text: "".join(f"\\{code:03o}" for code in text.encode()),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "cut": lambda text: text[: 2 * len(text) // 3] + "...",
}


@pytest.mark.parametrize("encode", ENCODED.values(), ids=ENCODED)
@pytest.mark.parametrize("before", ["", "Bearer "])
def test_tokens_are_masked_in_all_encodings(encode: Callable[[str], str], before: str) -> None:
    token = "ya29." + base64.urlsafe_b64encode(random.Random(7).randbytes(60)).decode()
    sent = Secrets()
    sent.add({"authorization": f"Bearer {token}", "x-goog-user-project": "forest-project"})
    encoded = encode(before + token)
    shown = sent.masked(f"The header {encoded} of forest-project is not valid.")
    middle = len(encoded) // 2
    assert encoded[middle : middle + 8] not in shown
    assert encoded[-12:-4] not in shown


def test_messages_without_tokens_are_shown() -> None:
    message = "Permission 'aiplatform.endpoints.predict' denied on resource 1234567890123456789."
    for seed in range(20):
        sent = Secrets()
        sent.add({"authorization": f"Bearer {base64.b64encode(random.Random(seed).randbytes(300)).decode()}"})
        assert sent.masked(message) == message


def test_short_headers_are_not_masked() -> None:
    sent = Secrets()
    sent.add({"x-version": "1", "x-mode": "a 1"})
    assert sent.masked("Error 400: field a 1 b") == "Error 400: field a 1 b"


@pytest.mark.parametrize("code", [200, 400])
def test_responses_that_repeat_the_token(server: Server, issuer: Issuer, code: int) -> None:
    body = json.dumps({"error": base64.b64encode(f"Bearer {TOKEN}".encode()).decode()})
    fault = Status(code, body.encode() if code == 400 else f'{{"predictions": ["{TOKEN}"'.encode())
    with FaultProxy(server.url, (fault,)) as proxy:
        model = xee_tf.Model.from_vertex_ai(
            ENDPOINT, base_url=proxy.url, route="rawPredict", credentials="google"
        )
        with pytest.raises(PredictionError) as caught:
            connected(model.connector).predict(batch_of(3))
    assert_secret(str(caught.value))
    assert base64.b64encode(TOKEN.encode()).decode()[4:12] not in str(caught.value)


# -- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(key: rsa.RSAPrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, and its key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    found = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(loopback, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + found.public_bytes(serialization.Encoding.PEM))
    return file


def test_certificates_are_verified(
    server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FaultProxy(server.url) as proxy:
        proxy.socket = context.wrap_socket(proxy.socket, server_side=True)
        url = proxy.url.replace("http:", "https:")
        start = time.monotonic()
        with pytest.raises(PredictionError, match=r"TLS.*CERTIFICATE_VERIFY_FAILED"):
            predict(vertex_ai(url, route="rawPredict", credentials=None))
        with pytest.raises(ModelError, match=r"(?i)certificate|handshake"):
            xee_tf.Model.from_tf_serving(url, "known", transport="grpc").connector.signature()
        assert time.monotonic() - start < 5  # certificate errors are not retried
        assert not proxy.bodies
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        predict(vertex_ai(url, route="rawPredict", credentials=None, timeout=59))
        assert len(proxy.bodies) == 1
