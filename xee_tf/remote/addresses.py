"""Addresses of model servers: what is accepted as one, and where credentials may be sent."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from xee_tf.errors import OptionError

__all__ = ["GrpcTarget", "check_grpc_target", "check_url", "may_carry_credentials"]


@dataclass(frozen=True)
class GrpcTarget:
    """Where gRPC is spoken: ``host:port``, whether with TLS, and the headers of each request."""

    address: str
    secure: bool
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"grpc{'s' if self.secure else ''}://{self.address}"


def check_url(url: str, name: str = "url") -> str:
    """The URL of a server, without a slash at its end.

    Raises
    ------
    OptionError
        If it is no http or https URL, or holds a user, a password, a query or a fragment. What may be secret
        is not repeated.

    Examples
    --------
    >>> check_url("https://models.example.org/europe/")
    'https://models.example.org/europe'
    """
    parts = _split(url, name, ("https", "http"))
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def check_grpc_target(url: str, name: str = "url", default_port: int = 8500) -> GrpcTarget:
    """Where gRPC is spoken: ``host:port``, ``grpc://`` or ``http://``; with TLS ``grpcs://`` or ``https://``.

    Raises
    ------
    OptionError
        As `check_url`, and if there is a path.

    Examples
    --------
    >>> str(check_grpc_target("localhost")), str(check_grpc_target("https://models.example.org"))
    ('grpc://localhost:8500', 'grpcs://models.example.org:443')
    """
    text = str(url) if "://" in str(url) else f"grpc://{url}"
    parts = _split(text, name, ("grpc", "grpcs", "https", "http"))
    if parts.path.strip("/"):
        raise OptionError(f"{name}: gRPC has no paths: {parts.path!r} must be left out.")
    secure = parts.scheme in ("grpcs", "https")
    port = parts.port or (443 if secure else default_port)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return GrpcTarget(f"{host}:{port}", secure)


def may_carry_credentials(url: str) -> bool:
    """Whether a token may be sent there: with TLS, or within this machine.

    Examples
    --------
    >>> may_carry_credentials("http://127.0.0.1:8501"), may_carry_credentials("http://models.example.org")
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
    expected = f"{name} must be an address such as {schemes[0]}://models.example.org:8501"
    if not isinstance(url, str):
        raise OptionError(f"{expected}; got {url!r}.")
    if "@" in url:
        # Whatever is in front of it may be a password, however the rest is to be read.
        raise OptionError(f"{expected}, without a user or a password in it.")
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0
    except ValueError:
        raise OptionError(f"{expected}; its host or its port cannot be read.") from None
    if parts.scheme not in schemes:
        raise OptionError(f"{expected}; got the scheme {parts.scheme!r}, known are {', '.join(schemes)}.")
    if not parts.hostname or not port_is_valid or not url.isprintable() or " " in url or "\\" in url:
        raise OptionError(f"{expected}; got {url!r}.")
    if parts.query or parts.fragment:
        raise OptionError(f"{expected}, without a query or a fragment.")
    return parts
