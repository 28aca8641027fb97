"""The access log of a server: one line for each request, by Python's `logging`.

Nothing is measured unless the logger ``xee_tf.serving`` is enabled for the level INFO when the server starts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

__all__ = ["LOGGER", "LoggedRequests", "log_call", "logs_requests"]

LOGGER = logging.getLogger("xee_tf.serving")


def logs_requests() -> bool:
    """Return whether requests are logged."""
    return LOGGER.isEnabledFor(logging.INFO)


def _log(client: str, request: str, status: object, began: float) -> None:
    milliseconds = 1000 * (time.perf_counter() - began)
    LOGGER.info("%s %s %s %.0f ms", client or "-", request, status, milliseconds)


class LoggedRequests:
    """ASGI middleware that logs each HTTP request with its client, status and duration.

    The status is 499 if the client disconnects before there is one.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        began, status = time.perf_counter(), 499

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            client, _ = scope.get("client") or ("", 0)
            # A path from a client may contain anything; a line of the log must stay one.
            path = scope["path"].encode("unicode_escape").decode()
            _log(client, f"{scope['method']} {path}", status, began)


def log_call(method: str, call: Callable[[Any, Any], bytes]) -> Callable[[Any, Any], bytes]:
    """Return a handler of gRPC that logs each call with its client, status and duration."""

    def logged(messages: Any, context: Any) -> bytes:
        began, status = time.perf_counter(), "OK"
        try:
            return call(messages, context)
        except BaseException:
            code = context.code()
            status = "CANCELLED" if code is None else code.name
            raise
        finally:
            client = context.peer().partition(":")[2].rpartition(":")[0].strip("[]%5BD")
            _log(client, f"gRPC {method}", status, began)

    return logged
