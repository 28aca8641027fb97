"""Errors of disks and object stores, in words that name the file and say what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from xee_tf.errors import DestinationError, MissingShardError, OptionError, StorageError, XeeTFError, shorten
from xee_tf.storage.equivalents import bucket_url
from xee_tf.storage.processes import TOKEN

__all__ = [
    "NO_TLS",
    "USE_HTTP",
    "disk_usage",
    "explain_store",
    "is_inaccessible",
    "is_missing",
    "is_other_version",
    "storage_errors",
]

_FULL = 64 << 10  # a disk with fewer free bytes counts as full

_ACCESS = "Every process that {action}s needs access to the folder."

# Errors of actions that callers expect.
_EXPECTED: dict[str, tuple[type[Exception], ...]] = {
    "create": (FileExistsError,),
    "read": (IsADirectoryError, NotADirectoryError),
    "list": (NotADirectoryError,),
}

# For errors of a local disk: what is wrong, and what to do.
_DISK: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "Free some space, or choose another disk."),
    errno.EDQUOT: ("the disk quota is used up", "Delete files, or choose another disk."),
    errno.EROFS: ("the disk is read-only", "Choose another folder."),
    errno.EACCES: ("permission denied", _ACCESS),
    errno.EPERM: ("permission denied", _ACCESS),
    errno.ENOENT: ("no such file or folder", _ACCESS),
    errno.ENOTDIR: ("a folder of this path is a file", _ACCESS),
    errno.EEXIST: ("a folder of this path is a file", _ACCESS),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter name."),
    errno.EFBIG: ("the file is larger than the disk or its limits permit", "Check ulimit -f."),
    errno.EMFILE: ("too many files are open", "Raise the limit with ulimit -n."),
    errno.EIO: ("the disk failed", "Check the disk and its connection, then run it again."),
}

_UNKNOWN_OPTION = re.compile(r"[Gg]ot (?:an )?unexpected keyword argument '(\w+)'")
# Objects that a run creates beside its destination, which is named instead: both have the same credentials.
_INTERNAL = re.compile(rf"/\.(?P<name>[^/]+)(-{TOKEN}\.parts(/.*)?|\.(writer|commit|undo))$")
_NO_OBJECT = frozenset({"NoSuchKey", "BlobNotFound"})
_UNREACHABLE = frozenset(
    {"ConnectionError", "TimeoutError", "gaierror", "HTTPClientError", "ClientConnectionError"}
    | {"ServiceRequestError", "ServiceResponseError", "TransportError", "RequestTimeout"}
)
_TRANSIENT = frozenset({"408", "429", "502", "503", "504"})  # status of web servers
_NO_ENDPOINT = "Invalid endpoint"  # botocore's ValueError for an address without a scheme
NO_TLS = re.compile("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE", re.IGNORECASE)
"""OpenSSL's errors if a server responds without TLS."""

USE_HTTP = "If it is not meant to, begin its address with http:// instead of https://."
"""What to do then."""

_NO_BUCKET = "no such bucket"  # not every store tells whether a bucket or an object does not exist

# For errors of object stores: error codes or names of exception classes, what is wrong, and what to do.
_STORE: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}),
        "the bucket does not exist",
        "Correct its name, or create it first.",
    ),
    (
        frozenset({"NoCredentialsError", "PartialCredentialsError"}),  # of S3
        "no credentials were found",
        "Pass storage_options={'profile': '...'}, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or log in with aws configure.",
    ),
    (
        frozenset({"DefaultCredentialsError"}),  # of Google
        "no credentials were found",
        "Pass storage_options={'token': 'key.json'}, or set GOOGLE_APPLICATION_CREDENTIALS to the path of a "
        "key file, or log in with gcloud auth application-default login.",
    ),
    (
        frozenset({"CredentialUnavailableError"}),  # of Azure
        "no credentials were found",
        "Pass storage_options={'account_key': '...'}, or set AZURE_STORAGE_ACCOUNT_KEY or "
        "AZURE_STORAGE_CONNECTION_STRING, or log in with az login.",
    ),
    (
        frozenset(
            {
                "ExpiredToken",
                "ExpiredTokenException",
                "RequestExpired",
                "TokenRefreshRequired",
                "RefreshError",
                "SSOTokenLoadError",
                "TokenRetrievalError",
                "UnauthorizedSSOTokenError",
                "CredentialRetrievalError",
            }
        ),
        "the credentials have expired",
        "Renew them, then run it again.",
    ),
    (
        frozenset(
            {
                "InvalidAccessKeyId",
                "SignatureDoesNotMatch",
                "InvalidToken",
                "AuthenticationFailed",
                "ClientAuthenticationError",
                "401",
            }
        ),
        "the credentials are not valid",
        "Check the storage options, or log in again.",
    ),
    (
        frozenset(
            {"SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "ServerBusy"}
            | {"RequestLimitExceeded", "TooManyRequests", "429", "503"}
        ),
        "the store received too many requests",
        "Run it again later, or with fewer workers.",
    ),
    (
        frozenset(
            {"QuotaExceeded", "AccountQuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
        ),
        "the store is full",
        "Delete objects, or choose another store.",
    ),
    (
        frozenset({"PermissionError", "AccessDenied", "AllAccessDisabled", "AuthorizationFailure", "403"}),
        "permission denied",
        "The credentials must permit it for this path.",
    ),
    (
        frozenset({"NoSuchUpload", "InvalidPart", "InvalidBlockList"}),
        "the upload no longer exists, because it was aborted or has expired",
        "Run it again.",
    ),
    (
        frozenset({"FileNotFoundError", "404"}) | _NO_OBJECT,
        "no such object",
        "",
    ),
    (
        frozenset({_NO_BUCKET}),
        "there is no such bucket or object",
        "Correct the name of the bucket, or create it first.",
    ),
    (
        frozenset({"InvalidBlobOrBlock"}),
        "another program has begun to upload this object",
        "Delete the object, or choose another name.",
    ),
    (
        frozenset({_NO_ENDPOINT}),
        "the address of the store is not a URL",
        "Begin endpoint_url in the storage options, or AWS_ENDPOINT_URL, with https:// or http://.",
    ),
    (
        _UNREACHABLE,
        "the store cannot be reached",
        "Check its address and the network, then run it again.",
    ),
    (
        frozenset({"FileExpired", "PreconditionFailed", "412"}),  # FileExpired is of s3fs
        "it was replaced while it was read",
        "Open it again.",
    ),
    (
        frozenset({"InternalError", "InternalServerError", "500", "502", "504"}),
        "the store failed",
        "Run it again later.",
    ),
    (
        frozenset({"400"}),  # the response to a HEAD request says no more
        "the store refused the request",
        "Check the storage options; the credentials may have expired.",
    ),
)


@contextmanager
def storage_errors(action: str, url: str, *, local: bool | None = None, left: str = "") -> Iterator[None]:
    """Convert errors of a disk or store to errors that name the file and say what to do.

    Errors of this package keep their message, to which `left` is added for those of a destination. Errors
    that are bugs do not change, nor do those that callers expect: a file to "create" that exists, a file to
    "delete" that does not, and a file to "read" that is a folder.

    Parameters
    ----------
    action : str
        What was being done, as a verb: "read", "list", "create", "write" or "delete".
    url : str
        The path or URL.
    local : bool, optional
        Whether it is on a local disk. By default, it is if `url` contains no ``://``.
    left : str
        A sentence that says what is left, such as "Nothing was changed."

    Raises
    ------
    DestinationError
        If `action` changes something.
    MissingShardError
        If a file to be read does not exist.
    StorageError
        If a file cannot be read for another reason.
    OptionError
        If the filesystem does not have one of its storage options.

    Examples
    --------
    >>> with storage_errors("read", "s3://bucket/scene-mixer.json"):
    ...     raise FileNotFoundError("The specified key does not exist.")
    Traceback (most recent call last):
    ...
    xee_tf.errors.MissingShardError: Cannot read s3://bucket/scene-mixer.json: no such object (The specified \
key does not exist).
    """
    try:
        yield
    except XeeTFError as error:
        if type(error) is DestinationError and left and left not in str(error):
            raise DestinationError(f"{error} {left}") from error
        raise
    except Exception as error:
        if isinstance(error, _EXPECTED.get(action, ())):
            raise
        cause = error.__cause__
        if (
            isinstance(error, FileNotFoundError)
            and isinstance(cause, Exception)
            and _signs(cause) & (_UNREACHABLE | _TRANSIENT)
        ):
            error = cause  # fsspec does not tell it from a missing file on a web server
        if isinstance(error, FileNotFoundError) and action == "delete":
            raise FileNotFoundError(errno.ENOENT, "No such file or object", url) from error
        unknown = _UNKNOWN_OPTION.search(str(error)) if isinstance(error, TypeError) else None
        if unknown and not local:
            raise OptionError(
                f"The storage options of {url} contain {unknown[1]!r}, which its filesystem does not have: "
                "correct the name."
            ) from error
        if _is_bug(error):
            raise
        is_local = "://" not in url if local is None else local
        explained = _explain_disk(error, action, url) if is_local else explain_store(error, action)
        if action in ("read", "list") and (private := bucket_url(url)):
            left = f"{left} Private objects are read from {private}."
        shown = url if is_local or action == "delete" else _INTERNAL.sub(r"/\g<name>", url)
        raise _class(error, action)(
            " ".join(f"Cannot {action} {shown}: {explained} {left}".split())
        ) from error


def _is_bug(error: BaseException) -> bool:
    """Return whether an error is not one of a store; adlfs raises a RuntimeError from those of its client."""
    if _NO_ENDPOINT in _signs(error):
        return False
    is_builtin = not isinstance(error, OSError) and type(error).__module__ == "builtins"
    return is_builtin and (error.__cause__ is None or _is_bug(error.__cause__))


def _class(error: Exception, action: str) -> Callable[[str], XeeTFError]:
    if action not in ("read", "list"):
        return DestinationError
    return MissingShardError if isinstance(error, FileNotFoundError) else StorageError


def _explain_disk(error: Exception, action: str, url: str) -> str:
    number = getattr(error, "errno", None)
    if number is None and isinstance(error, FileNotFoundError):
        number = errno.ENOENT  # Zarr's own errors have no number
    usage = disk_usage(url)
    if number not in _DISK and action not in ("read", "list") and usage and usage[0] < _FULL:
        number = errno.ENOSPC  # libraries such as GDAL do not say why they cannot write
    what, advice = _DISK.get(number or 0, (_text(error).rstrip("."), ""))
    if action == "read" and number == errno.ENOENT:
        return "the file does not exist."
    if number == errno.ENOSPC and usage:
        what += f" ({usage[0] / 1e6:,.0f} of {usage[1] / 1e6:,.0f} MB are free)"
    return f"{what} on {socket.gethostname()}. {advice.format(action=action)}"


def disk_usage(path: str) -> tuple[int, int] | None:
    """Return the free and the total bytes of the disk of a path, which need not exist."""
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    with suppress(OSError):
        usage = shutil.disk_usage(path)
        return usage.free, usage.total
    return None


def explain_store(error: Exception, action: str, mask: Callable[[str], str] = str) -> str:
    """Say what an error of a store means and what to do. `mask` removes secrets from its own text.

    Examples
    --------
    >>> explain_store(PermissionError("Access Denied"), "read")
    'permission denied (Access Denied). The credentials must permit it for this path.'
    """
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):  # of the local disk, for copies
        what, advice = _DISK[error.errno]  # type: ignore[attr-defined]
        return f"{what} on {socket.gethostname()}. {advice}"
    signs = _signs(error)
    if action in ("write", "create") and not signs & _NO_OBJECT:
        signs = {_NO_BUCKET if sign in ("404", "FileNotFoundError") else sign for sign in signs}
    detail = shorten(mask(_text(error)), 200).rstrip(".")
    if NO_TLS.search(detail):
        return f"the server does not use TLS ({detail}). {USE_HTTP}"
    for known, what, advice in _STORE:
        if found := sorted(signs & known):
            codes = [each for each in found if not each.isdigit() and not each.endswith("Error")]
            codes = [each for each in codes if each != _NO_BUCKET]
            code = f"{codes[0]}: " if codes and codes[0] not in detail else ""
            return f"{what} ({code}{detail}). {advice}"
    return f"{detail}."


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _signs(error: BaseException | None) -> set[str]:
    """Return codes, HTTP status and class names that tell what an error means; each client has its own."""
    found: set[str] = set()
    while error is not None:
        # The classes of builtin errors mean less than codes; "OSError" means nothing.
        found.update(kind.__name__ for kind in type(error).__mro__)
        response: Any = getattr(error, "response", None)
        if isinstance(response, dict):
            found.add(str(response.get("Error", {}).get("Code", "")))
            found.add(str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")))
        # aiohttp deprecates the code of an error that has a status.
        for name in ("error_code", "status" if hasattr(error, "status") else "code", "status_code"):
            value = getattr(error, name, None)
            value = getattr(value, "value", value)
            if isinstance(value, str | int):
                found.add(str(value))
        if isinstance(error, OSError) and str(error).startswith("Forbidden:"):
            found.add("403")  # gcsfs
        if isinstance(error, ValueError) and str(error).startswith(_NO_ENDPOINT):
            found.add(_NO_ENDPOINT)
        error = error.__cause__
    return found


def is_inaccessible(error: Exception) -> bool:
    """Return whether an error means that a file does not exist or cannot be accessed.

    If a store does not permit listing, a missing file gives the same error as a forbidden one; simple web
    servers respond with a server error. Transient errors (too many requests, bad gateway) do not count.
    """
    if isinstance(error, StorageError) and isinstance(error.__cause__, Exception):
        return is_inaccessible(error.__cause__)
    status, signs = getattr(error, "status", None), _signs(error)
    refused = isinstance(status, int) and 400 <= status <= 500 and status not in (408, 429)
    # Azure responds with 403 to invalid credentials too, which are not a matter of one file.
    refused = refused or ("403" in signs and "AuthenticationFailed" not in signs)
    return refused or isinstance(error, PermissionError | FileNotFoundError)


def is_missing(error: Exception) -> bool:
    """Return whether an error means that an object or an upload does not exist."""
    return not _signs(error).isdisjoint({"NoSuchUpload", "404", "FileNotFoundError"} | _NO_OBJECT)


def is_other_version(error: Exception) -> bool:
    """Return whether an error means that an object does not have the expected ETag."""
    return not _signs(error).isdisjoint({"PreconditionFailed", "412"})
