"""What a server answers instead of a prediction, and what each protocol makes of it."""

from __future__ import annotations

import json
import logging

from xee_tf.errors import XeeTFError
from xee_tf.remote.answers import Code

__all__ = ["RequestError", "as_request_error", "google_error", "tensorflow_error"]

logger = logging.getLogger(__name__)


_BY_NUMBER = {code.value[0]: code for code in Code}


class RequestError(Exception):
    """A request that cannot be answered.

    Parameters
    ----------
    code : Code
    message : str
        For the client: it names no path of the server.
    status : int, optional
        Of HTTP, where it has a finer one than the code.
    retry_after : int, optional
        Seconds after which it may work.
    """

    def __init__(
        self, code: Code, message: str, *, status: int | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after = code, message, retry_after
        self.status = status or code.status


def as_request_error(error: Exception) -> RequestError:
    """What a client is told of an error: requests that cannot be used are its own mistake.

    Examples
    --------
    >>> from xee_tf.errors import RecordError
    >>> as_request_error(RecordError("The request is not JSON.")).status
    400
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, XeeTFError):
        # Errors of TensorFlow have google.rpc's numbers. Without one, names, dtypes or shapes are wrong.
        number = getattr(error.__context__, "error_code", None)
        return RequestError(_BY_NUMBER.get(number or 0, Code.INVALID_ARGUMENT), str(error))
    if isinstance(error, MemoryError):
        return RequestError(Code.RESOURCE_EXHAUSTED, "The server has not enough memory for this request.")
    logger.error("A request failed.", exc_info=error)
    return RequestError(Code.INTERNAL, f"The server failed: {type(error).__name__}: {error}")


def tensorflow_error(failure: RequestError) -> bytes:
    """The body by which TensorFlow Serving says it.

    Examples
    --------
    >>> tensorflow_error(RequestError(Code.NOT_FOUND, "No such model."))
    b'{"error": "No such model."}'
    """
    return json.dumps({"error": failure.message}).encode()


def google_error(failure: RequestError) -> bytes:
    """The body by which Google's services say it.

    Examples
    --------
    >>> google_error(RequestError(Code.NOT_FOUND, "No such endpoint."))
    b'{"error": {"code": 404, "message": "No such endpoint.", "status": "NOT_FOUND"}}'
    """
    error = {"code": failure.status, "message": failure.message, "status": failure.code.name}
    return json.dumps({"error": error}).encode()
