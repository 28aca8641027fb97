"""The addresses of TensorFlow Serving, Vertex AI and AI Platform over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Executor
from threading import BoundedSemaphore
from typing import Any

from xee_tf.extras import extra
from xee_tf.remote import Code
from xee_tf.remote.payloads import decode_predict_request
from xee_tf.serving.bodies import read_body
from xee_tf.serving.failures import RequestError, as_request_error
from xee_tf.serving.metadata import metadata_json, status_json
from xee_tf.serving.models import Models, ModelVersion
from xee_tf.serving.predictions import predict_json, predict_message

with extra("serve", "A model server"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route

__all__ = ["rest_app"]

_JSON = "application/json"
_MESSAGES = ("application/x-protobuf", "application/protobuf", "application/octet-stream")
_GOOGLE = "/v1/projects/"


def rest_app(models: Models, pool: Executor, *, max_request_bytes: int, max_concurrency: int) -> Starlette:
    """The application; predictions run in `pool`, and the loop only moves bytes.

    Longer bodies are refused with 413. `max_concurrency` predictions may be read, waiting or running at a
    time; further ones are refused with 429.
    """
    rest = _Rest(models, pool, max_request_bytes, max_concurrency)
    model, endpoint = "/v1/models/{name}", "/v1/projects/{project}/locations/{location}/endpoints/{endpoint}"
    legacy = "/v1/projects/{project}/models/{name}"
    routes = [Route("/health", rest.health)]
    for which in ("", "/versions/{version:int}", "/labels/{label}"):
        routes += [
            Route(model + which + ":predict", rest.predict, methods=["POST"]),
            Route(model + which + "/metadata", rest.metadata),
            Route(model + which, rest.status),
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
            RequestError: _failed,
            HTTPException: _no_such_address,
            ClientDisconnect: _failed,
            Exception: _failed,
        },
    )


class _Rest:
    def __init__(self, models: Models, pool: Executor, max_request_bytes: int, max_concurrency: int) -> None:
        self._models, self._pool, self._most_bytes = models, pool, max_request_bytes
        self._places = BoundedSemaphore(max_concurrency)

    async def health(self, request: Request) -> Response:
        return _json(json.dumps({"status": "ok", "models": self._models.names}).encode())

    # -- TensorFlow Serving --

    async def predict(self, request: Request) -> Response:
        model = self._requested(request)
        return _json(await self._run(request, lambda body: predict_json(model, body)))

    async def status(self, request: Request) -> Response:
        if request.url.path.rpartition("/")[2].count(":"):  # a verb that is no GET
            raise HTTPException(404)
        if "version" in request.path_params or "label" in request.path_params:
            return _json(status_json([self._requested(request)]))
        return _json(status_json(self._models.versions(request.path_params["name"]).values()))

    async def metadata(self, request: Request) -> Response:
        return _json(metadata_json(self._requested(request)))

    def _requested(self, request: Request) -> ModelVersion:
        parts = request.path_params
        return self._models.find(parts["name"], parts.get("version"), parts.get("label"))

    # -- Vertex AI --

    async def vertex_predict(self, request: Request) -> Response:
        model = self._models.at_endpoint(request.path_params["endpoint"])
        answer = await self._run(request, lambda body: predict_json(model, body, rows_only=True))
        parts = request.path_params
        resource = f"projects/{parts['project']}/locations/{parts['location']}/models/{model.name}"
        about = {
            "deployedModelId": str(model.version),
            "model": resource,
            "modelDisplayName": model.name,
            "modelVersionId": str(model.version),
        }
        return _json(answer[:-1] + b"," + json.dumps(about).encode()[1:])

    async def vertex_raw_predict(self, request: Request) -> Response:
        """The body is for the model's own server: JSON, or by its content type a PredictRequest."""
        endpoint = request.path_params["endpoint"]
        model = self._models.at_endpoint(endpoint)
        headers = {
            "X-Vertex-AI-Endpoint-Id": endpoint,
            "X-Vertex-AI-Deployed-Model-Id": str(model.version),
        }
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in _MESSAGES:
            answer = await self._run(
                request, lambda body: predict_message(decode_predict_request(body), model, self._most_bytes)
            )
            return Response(answer, media_type=kind, headers=headers)
        return _json(await self._run(request, lambda body: predict_json(model, body)), headers)

    # -- AI Platform --

    async def platform_predict(self, request: Request) -> Response:
        name, version = request.path_params["name"], request.path_params.get("version")
        if version is None:
            model = self._models.find(name)
        elif (number := version.removeprefix("v")).isdecimal():  # versions have names there: v1
            model = self._models.find(name, int(number))
        else:
            model = self._models.find(name, label=version)
        return _json(await self._run(request, lambda body: predict_json(model, body, rows_only=True)))

    async def _run(self, request: Request, work: Callable[[bytes], bytes]) -> bytes:
        """Read the body and work on it in the pool, if there is a place."""
        if not self._places.acquire(blocking=False):
            message = "As many predictions as this server takes at a time are under way; try again."
            raise RequestError(Code.RESOURCE_EXHAUSTED, message, retry_after=1)
        try:
            body = await read_body(request, self._most_bytes)
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, body)
        except ClientDisconnect:
            raise
        except Exception as error:
            raise as_request_error(error) from error
        finally:
            self._places.release()


def _json(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, media_type=_JSON, headers=headers)


def _failed(request: Request, error: Exception) -> Response:
    """An error in the form of the address."""
    if isinstance(error, ClientDisconnect):
        error = RequestError(Code.CANCELLED, "The client is gone.")
    failure = as_request_error(error)
    said: Any = failure.message
    if request.url.path.startswith(_GOOGLE):
        said = {"code": failure.status, "message": said, "status": failure.code.name}
    body = json.dumps({"error": said}).encode()
    headers = {} if failure.retry_after is None else {"Retry-After": str(failure.retry_after)}
    return Response(body, failure.status, headers, _JSON)


def _no_such_address(request: Request, error: Exception) -> Response:
    """TensorFlow Serving calls it malformed, Google does not find it, by whatever method."""
    path = request.url.path
    if path.startswith("/v1/") and not path.startswith(_GOOGLE):
        return _failed(
            request, RequestError(Code.INVALID_ARGUMENT, f"Malformed request: {request.method} {path}")
        )
    return _failed(request, RequestError(Code.NOT_FOUND, f"There is nothing at {request.method} {path}."))
