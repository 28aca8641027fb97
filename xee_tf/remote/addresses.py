"""Validate addresses of model servers, and decide which may receive credentials."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from xee_tf.errors import OptionError

__all__ = ["GrpcTarget", "allows_credentials", "check_grpc_target", "check_url"]


@dataclass(frozen=True)
class GrpcTarget:
    """A gRPC server: its ``host:port``, whether TLS is used, and headers to send with each request."""

    address: str
    secure: bool
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"grpc{'s' if self.secure else ''}://{self.address}"


def check_url(url: str, name: str = "url") -> str:
    """Return the URL of an HTTP server without trailing slashes.

    Raises
    ------
    OptionError
        If it is not an http or https URL, or contains a user, a password, a query or a fragment. The message
        does not repeat anything that may be secret.

    Examples
    --------
    >>> check_url("https://models.example.org/europe/")
    'https://models.example.org/europe'
    >>> check_url("models.example.org:8501")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: url must start with http:// or https:// for REST; got ...
    """
    parts = _split(url, name, ("https", "http"))
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def check_grpc_target(url: str, name: str = "url", default_port: int = 8500) -> GrpcTarget:
    """Parse the address of a gRPC server.

    Accepted are ``host:port``, ``grpc://`` and ``http://`` URLs, and with TLS ``grpcs://`` and ``https://``.

    Raises
    ------
    OptionError
        In the same cases as `check_url`, and if the URL has a path.

    Examples
    --------
    >>> str(check_grpc_target("localhost")), str(check_grpc_target("https://models.example.org"))
    ('grpc://localhost:8500', 'grpcs://models.example.org:443')
    """
    text = str(url) if "://" in str(url) else f"grpc://{url}"
    parts = _split(text, name, ("grpc", "grpcs", "https", "http"))
    if parts.path.strip("/"):
        raise OptionError(f"{name} cannot have a path with gRPC: remove {parts.path!r}.")
    secure = parts.scheme in ("grpcs", "https")
    port = parts.port or (443 if secure else default_port)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return GrpcTarget(f"{host}:{port}", secure)


def allows_credentials(url: str) -> bool:
    """Return whether credentials may be sent to a URL: if it uses TLS or is on this machine.

    Examples
    --------
    >>> allows_credentials("http://127.0.0.1:8501"), allows_credentials("http://models.example.org")
    (True, False)
    """
    parts = urlsplit(url)
    if parts.scheme in ("https", "grpcs") or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _split(url: Any, name: str, schemes: tuple[str, ...]) -> SplitResult:
    """Split a URL, or raise an `OptionError`."""
    expected = f"{name} must be an address such as {schemes[0]}://models.example.org:8501"
    if not isinstance(url, str):
        raise OptionError(f"{expected}; got {url!r}.")
    if "@" in url:
        # The part before "@" may be a password, even if the rest is malformed.
        raise OptionError(f"{expected}, without a user or a password.")
    if "://" not in url:
        parts = _split(f"http://{url}", name, ("http",))
        start, rest = "http:// or https://", f"{parts.netloc}{parts.path}"
        fix = f"Use {'http://' + rest!r}"
        if name == "url":  # the option of TensorFlow Serving, which also has gRPC
            start += " for REST"
            fix = f"If it is the address for gRPC, pass transport='grpc'; for REST, use {'http://' + rest!r}"
        raise OptionError(f"{name} must start with {start}; got {url!r}. {fix}.")
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0
    except ValueError:
        raise OptionError(f"{expected}; its host or port is not valid.") from None
    if parts.scheme not in schemes:
        is_grpc = name == "url" and parts.scheme in ("grpc", "grpcs")
        hint = " For gRPC, pass transport='grpc'." if is_grpc else ""
        raise OptionError(
            f"{expected}; got the scheme {parts.scheme!r}, expected one of {', '.join(schemes)}.{hint}"
        )
    if not parts.hostname or not port_is_valid or not url.isprintable() or " " in url or "\\" in url:
        raise OptionError(f"{expected}; got {url!r}.")
    if parts.query or parts.fragment:
        raise OptionError(f"{expected}, without a query or a fragment.")
    return parts
