"""The REST APIs of TensorFlow Serving, Vertex AI and AI Platform."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import Executor
from threading import BoundedSemaphore
from typing import Any

from xee_tf.extras import extra
from xee_tf.remote import Code
from xee_tf.remote.payloads import decode_predict_request
from xee_tf.serving.access import LoggedRequests, logs_requests
from xee_tf.serving.bodies import Body
from xee_tf.serving.failures import RequestError, as_request_error, no_slot
from xee_tf.serving.held import HeldBytes
from xee_tf.serving.limits import PatientClock
from xee_tf.serving.metadata import metadata_json, status_json
from xee_tf.serving.models import Models, ModelVersion
from xee_tf.serving.predictions import predict_json, predict_message

with extra("serve", "A model server"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["rest_app"]

_JSON = "application/json"
_MESSAGES = ("application/x-protobuf", "application/protobuf", "application/octet-stream")
_GOOGLE = "/v1/projects/"
_DIGITS = re.compile("[0-9]+")


def rest_app(
    models: Models,
    pool: Executor,
    held: HeldBytes,
    clock: PatientClock,
    *,
    max_request_bytes: int,
    max_concurrency: int,
) -> Starlette:
    """Create the application, which runs predictions in `pool`, and counts its requests in `held`.

    Bodies larger than `max_request_bytes` are rejected with 413. At most `max_concurrency` requests whose
    body has arrived are in progress at a time; others are rejected with 429.
    """
    rest = _Rest(models, pool, held, clock, max_request_bytes, max_concurrency)
    model, endpoint = "/v1/models/{name}", "/v1/projects/{project}/locations/{location}/endpoints/{endpoint}"
    legacy = "/v1/projects/{project}/models/{name}"
    routes = [Route("/health", rest.health)]
    for version in ("", "/versions/{version}", "/labels/{label}"):
        routes += [
            Route(model + version + ":predict", rest.predict, methods=["POST"]),
            Route(model + version + "/metadata", rest.metadata),
            Route(model + version, rest.status),
        ]
    routes += [
        Route(endpoint + ":predict", rest.vertex_predict, methods=["POST"]),
        Route(endpoint + ":rawPredict", rest.vertex_raw_predict, methods=["POST"]),
        Route(legacy + ":predict", rest.platform_predict, methods=["POST"]),
        Route(legacy + "/versions/{version}:predict", rest.platform_predict, methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={
            RequestError: _error_response,
            HTTPException: _unknown_url,
            ClientDisconnect: _error_response,
        },
        middleware=[*([Middleware(LoggedRequests)] if logs_requests() else []), Middleware(_OtherErrors)],
    )


class _OtherErrors:
    """Responds to errors of the server. A handler of Exception would also make uvicorn log them again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            await _error_response(Request(scope), error)(scope, receive, send)


class _Rest:
    """The handlers of the routes."""

    def __init__(
        self,
        models: Models,
        pool: Executor,
        held: HeldBytes,
        clock: PatientClock,
        max_request_bytes: int,
        max_concurrency: int,
    ) -> None:
        self._models, self._pool, self._held, self._clock = models, pool, held, clock
        self._max_bytes = max_request_bytes
        self._slots = BoundedSemaphore(max_concurrency)

    async def health(self, request: Request) -> Response:
        return _json(json.dumps({"status": "ok", "models": self._models.names}).encode())

    # -- TensorFlow Serving --

    async def predict(self, request: Request) -> Response:
        model = self._find_model(request)
        return _json(await self._run(request, lambda body: predict_json(model, body)))

    async def status(self, request: Request) -> Response:
        if request.url.path.rpartition("/")[2].count(":"):  # an unknown method such as :regress
            raise HTTPException(404)
        if "version" in request.path_params or "label" in request.path_params:
            return _json(status_json([self._find_model(request)]))
        return _json(status_json(self._models.versions(request.path_params["name"]).values()))

    async def metadata(self, request: Request) -> Response:
        return _json(metadata_json(self._find_model(request)))

    def _find_model(self, request: Request) -> ModelVersion:
        params = request.path_params
        version = params.get("version")
        if version is not None and not _DIGITS.fullmatch(version):
            raise HTTPException(404)
        return self._models.find(params["name"], version, params.get("label"))

    # -- Vertex AI --

    async def vertex_predict(self, request: Request) -> Response:
        params = request.path_params
        model = self._models.find_endpoint(params["endpoint"])
        response = await self._run(request, lambda body: predict_json(model, body, rows_only=True))
        resource = f"projects/{params['project']}/locations/{params['location']}/models/{model.name}"
        metadata = {
            "deployedModelId": str(model.version),
            "model": resource,
            "modelDisplayName": model.name,
            "modelVersionId": str(model.version),
        }
        return _json(response[:-1] + b"," + json.dumps(metadata).encode()[1:])

    async def vertex_raw_predict(self, request: Request) -> Response:
        """Predict as TensorFlow Serving: JSON, or a PredictRequest, depending on the content type."""
        endpoint = request.path_params["endpoint"]
        model = self._models.find_endpoint(endpoint)
        headers = {
            "X-Vertex-AI-Endpoint-Id": endpoint,
            "X-Vertex-AI-Deployed-Model-Id": str(model.version),
        }
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in _MESSAGES:
            response = await self._run(
                request, lambda body: predict_message(decode_predict_request(body), model, self._max_bytes)
            )
            return Response(response, media_type=kind, headers=headers)
        return _json(await self._run(request, lambda body: predict_json(model, body)), headers)

    # -- AI Platform --

    async def platform_predict(self, request: Request) -> Response:
        name, version = request.path_params["name"], request.path_params.get("version")
        if version is None:
            model = self._models.find(name)
        elif _DIGITS.fullmatch(number := version.removeprefix("v")):  # AI Platform names versions: v1
            model = self._models.find(name, number)
        else:
            model = self._models.find(name, label=version)
        return _json(await self._run(request, lambda body: predict_json(model, body, rows_only=True)))

    async def _run(self, request: Request, work: Callable[[bytes], bytes]) -> bytes:
        """Read the body, and then process it in the pool if a slot is free."""
        received = Body(request, self._max_bytes, self._held, self._clock)
        try:
            body = await received.receive()
            if not self._slots.acquire(blocking=False):
                raise no_slot()
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._pool, lambda: work(received.content(body))
                )
            finally:
                self._slots.release()
        except ClientDisconnect:
            raise
        except Exception as error:
            raise as_request_error(error) from error
        finally:
            received.close()


def _json(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, media_type=_JSON, headers=headers)


def _error_response(request: Request, error: Exception) -> Response:
    """Return an error in the format of the API to which the URL belongs."""
    if isinstance(error, ClientDisconnect):
        error = RequestError(Code.CANCELLED, "The client disconnected.")
    failure = as_request_error(error)
    content: Any = failure.message
    if request.url.path.startswith(_GOOGLE):
        content = {"code": failure.status, "message": content, "status": failure.code.name}
    body = json.dumps({"error": content}).encode()
    headers = {} if failure.retry_after is None else {"Retry-After": str(failure.retry_after)}
    return Response(body, failure.status, headers, _JSON)


def _unknown_url(request: Request, error: Exception) -> Response:
    """Return "malformed request" like TensorFlow Serving, or "not found" like Google."""
    path = request.url.path
    if path.startswith("/v1/") and not path.startswith(_GOOGLE):
        return _error_response(
            request, RequestError(Code.INVALID_ARGUMENT, f"Malformed request: {request.method} {path}")
        )
    return _error_response(request, RequestError(Code.NOT_FOUND, f"Not found: {request.method} {path}."))
