"""What a server answers instead of a prediction."""

from __future__ import annotations

import logging

from xee_tf.errors import XeeTFError
from xee_tf.remote import Code

__all__ = ["RequestError", "as_request_error"]

logger = logging.getLogger(__name__)

_BY_NUMBER = {code.value[0]: code for code in Code}


class RequestError(Exception):
    """A request that cannot be answered.

    The message is for the client: it names no path of the server. `status` is that of HTTP, where it has a
    finer one than the code; after `retry_after` seconds the request may work.
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
