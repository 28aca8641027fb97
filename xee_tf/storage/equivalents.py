"""What to pass instead of the web address of a bucket, or of a store object of zarr or obstore.

obstore has other names for what fsspec opens: web addresses of buckets, which are web servers for fsspec, and
objects such as ``S3Store``, which have no files that fsspec could open.
"""

from __future__ import annotations

import os
import re
from typing import Any

__all__ = ["bucket_url", "explain_object"]

_AWS = r"amazonaws\.com(?:\.cn)?"
# Web addresses with the scheme of fsspec, and the storage option that holds the group of this name.
_ADDRESSES = (
    (re.compile(r"https?://(?P<account_name>[^/.]+)\.(?:blob|dfs)\.core\.windows\.net/(?P<path>.+)"), "az"),
    (re.compile(rf"https?://s3(?:[.-][\w.-]+?)?\.{_AWS}/(?P<path>.+)"), "s3"),
    (re.compile(rf"https?://(?P<bucket>[^/]+?)\.s3(?:[.-][\w.-]+?)?\.{_AWS}/(?P<path>.+)"), "s3"),
    (re.compile(r"(?P<endpoint_url>https?://[^/]+\.r2\.cloudflarestorage\.com)/(?P<path>.+)"), "s3"),
    (re.compile(r"https?://storage\.googleapis\.com/(?P<path>.+)"), "gs"),
    (re.compile(r"https?://(?P<bucket>[^/]+?)\.storage\.googleapis\.com/(?P<path>.+)"), "gs"),
)
# Stores of obstore with their scheme, and the key of the bucket in their configuration.
_BUCKETS = {
    "AzureStore": ("az", "container_name"),
    "GCSStore": ("gs", "bucket"),
    "S3Store": ("s3", "bucket"),
}
_OPTIONS = {"account_name": "account_name", "endpoint": "endpoint_url"}
"""Names in this configuration, and of fsspec's options; no credentials."""


def bucket_url(address: str) -> str:
    """Say how to open the web address of an object as one of its bucket; "" if it is not such an address.

    Examples
    --------
    >>> bucket_url("https://forests.blob.core.windows.net/maps/scene")
    "az://maps/scene with storage_options={'account_name': 'forests'}"
    >>> bucket_url("https://maps.s3.eu-west-1.amazonaws.com/2020/scene")
    's3://maps/2020/scene'
    """
    for pattern, scheme in _ADDRESSES:
        if match := pattern.fullmatch(address.partition("?")[0]):
            found = match.groupdict()
            url = "/".join(filter(None, (found.get("bucket"), found["path"])))
            return _described(scheme, url, {name: found[name] for name in _OPTIONS.values() if name in found})
    return ""


def explain_object(given: object) -> str:
    """Say what to pass instead of a store object of zarr or obstore; "" if it is another object.

    Examples
    --------
    >>> import zarr
    >>> explain_object(zarr.storage.LocalStore("/data/maps.zarr"))
    'It is a store object of zarr: pass /data/maps.zarr instead. To read its arrays, pass what \
xr.open_zarr(store) returns.'
    """
    bases = {kind.__module__ for kind in type(given).__mro__}
    if bases.isdisjoint({"zarr.abc.store", "obstore.store"}):
        return ""
    package = type(given).__module__.partition(".")[0]
    url = _url_of(given)
    instead = f"pass {url} instead" if url else "no URL leads to what it holds"
    store = "store" if "zarr.abc.store" in bases else "zarr.storage.ObjectStore(store)"
    return (
        f"It is a store object of {package}: {instead}. To read its arrays, pass what xr.open_zarr({store}) "
        "returns."
    )


def _url_of(store: Any) -> str:
    """Return the path or URL of a store object, with the options that it needs; "" if it is in memory."""
    store = getattr(store, "store", store)  # zarr's ObjectStore has the store of obstore
    kind = type(store).__name__
    if kind == "LocalStore":
        return str(getattr(store, "root", None) or getattr(store, "prefix", None) or os.sep)
    if kind == "FsspecStore":
        return str(store.fs.unstrip_protocol(store.path))
    if kind == "HTTPStore":
        return str(store.url)
    if kind not in _BUCKETS:
        return ""
    scheme, bucket = _BUCKETS[kind]
    path = f"{store.config[bucket]}/{store.prefix or ''}".rstrip("/")
    options = {name: store.config[key] for key, name in _OPTIONS.items() if key in store.config}
    return _described(scheme, path, options)


def _described(scheme: str, path: str, options: dict[str, str]) -> str:
    return f"{scheme}://{path}" + (f" with storage_options={options}" if options else "")
