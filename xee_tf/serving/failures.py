"""Errors of the server, as responses to clients."""

from __future__ import annotations

import logging

from xee_tf.errors import LONGEST_TEXT, XeeTFError, shorten
from xee_tf.remote import Code

__all__ = ["RequestError", "as_request_error", "no_slot"]

logger = logging.getLogger(__name__)

_BY_NUMBER = {code.value[0]: code for code in Code}


class RequestError(Exception):
    """A request failed.

    Parameters
    ----------
    code : Code
        Status code of gRPC.
    message : str
        Message for the client; it must not contain paths of the server.
    status : int, optional
        HTTP status. Default: that of `code`.
    retry_after : int, optional
        Seconds after which the request may succeed.
    """

    def __init__(
        self, code: Code, message: str, *, status: int | None = None, retry_after: int | None = None
    ) -> None:
        message = shorten(message, LONGEST_TEXT)  # it may contain a name from the request
        super().__init__(message)
        self.code, self.message, self.retry_after = code, message, retry_after
        self.status = status or code.status


def no_slot() -> RequestError:
    """Return the error of a request for which there is no free slot."""
    message = "The server is at its maximum number of concurrent predictions; try again later."
    return RequestError(Code.RESOURCE_EXHAUSTED, message, retry_after=1)


def as_request_error(error: Exception) -> RequestError:
    """Convert an error to the one that is sent to the client; our own errors are invalid requests.

    Examples
    --------
    >>> from xee_tf.errors import RecordError
    >>> as_request_error(RecordError("The request is not JSON.")).status
    400
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, XeeTFError):
        # TensorFlow's errors have codes of google.rpc. Others are about names, dtypes or shapes.
        number = getattr(error.__context__, "error_code", None)
        return RequestError(_BY_NUMBER.get(number or 0, Code.INVALID_ARGUMENT), str(error))
    if isinstance(error, MemoryError):
        return RequestError(
            Code.RESOURCE_EXHAUSTED, "The server does not have enough memory for this request."
        )
    logger.error("Request failed", exc_info=error)
    return RequestError(Code.INTERNAL, f"The server failed: {type(error).__name__}: {error}")
