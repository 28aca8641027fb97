"""Buckets of local servers of object stores, behind a proxy that counts and disturbs requests.

The servers are moto for S3, Azurite for Azure and gcp-storage-emulator for Google Cloud Storage. Only
``make test-full`` runs the last two; it installs Azurite with npm.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.counting_proxy import ACCOUNT, DROP, CountingProxy, Error, Kill
from tests.kill_points import Point, run_in_child

__all__ = ["BUCKETS", "Bucket", "Server", "request_points", "run_server"]


@dataclass
class Server:
    """The server of an object store: its interface, and its URL."""

    store: str
    url: str


def run_server(store: str, data: Path) -> AbstractContextManager[Server]:
    """Run a local server of a store; Azurite is installed in the folder `data`."""
    return {"s3": _run_moto, "azure": _run_azurite, "gcs": _run_emulator}[store](data)


@contextmanager
def _run_moto(data: Path) -> Iterator[Server]:
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    before = os.environ.get("AWS_DEFAULT_REGION")
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Server("s3", f"http://{host}:{port}")
    finally:
        server.stop()
        if before is None:
            del os.environ["AWS_DEFAULT_REGION"]
        else:
            os.environ["AWS_DEFAULT_REGION"] = before


@contextmanager
def _run_azurite(data: Path) -> Iterator[Server]:
    pytest.importorskip("adlfs")
    program, node = data / "azurite/node_modules/azurite/dist/src/blob/main.js", shutil.which("node")
    if node is None or not program.exists():
        pytest.skip(f"Azurite is not in {data / 'azurite'}: install npm and run `make test-full`")
    port = _free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    command = [node, str(program), *options, "--skipApiVersionCheck", "--disableTelemetry"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield Server("azure", f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _run_emulator(data: Path) -> Iterator[Server]:
    pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    port = _free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True)
    server.start()
    try:
        _wait_for(port)
        yield Server("gcs", f"http://127.0.0.1:{port}")
    finally:
        server.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise TimeoutError(f"The server does not listen at port {port}.")


class Bucket:
    """A bucket of a local server behind a proxy.

    Parameters
    ----------
    name : str
        Name of the bucket.
    proxy : CountingProxy
        The proxy.
    upstream : str
        URL of the server, for requests that are not counted.
    """

    scheme: str

    def __init__(self, name: str, proxy: CountingProxy, upstream: str) -> None:
        self.name, self.proxy, self.upstream = name, proxy, upstream
        self.client: Any = self._connect()
        proxy.size_of = lambda key: len(self.get(key))

    @property
    def url(self) -> str:
        """URL of the bucket."""
        return f"{self.scheme}://{self.name}"

    @property
    def options(self) -> dict[str, Any]:
        """Storage options that use the proxy."""
        raise NotImplementedError

    def _connect(self) -> Any:
        """Create the bucket; return a client for it."""
        raise NotImplementedError

    def etags(self) -> dict[str, str]:
        """Return the keys and ETags of all objects, sorted."""
        raise NotImplementedError

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        raise NotImplementedError

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        raise NotImplementedError

    def delete(self, key: str) -> None:
        """Delete an object."""
        raise NotImplementedError

    def uploads(self) -> list[str]:
        """Return the keys of uploads that were neither completed nor aborted, if the store keeps them."""
        return []

    def abort_uploads(self) -> None:
        """Abort all uploads."""

    def buckets(self) -> set[str]:
        """Return the names of all buckets of the server."""
        raise NotImplementedError

    def read(self) -> dict[str, bytes]:
        """Return the content of all objects."""
        return {key: self.get(key) for key in self.etags()}

    def restore(self, objects: dict[str, bytes]) -> None:
        """Make these the objects of the bucket, and abort uploads."""
        self.abort_uploads()
        found = self.read()
        for key in found.keys() - objects.keys():
            self.delete(key)
        for key, data in objects.items():
            if found.get(key) != data:
                self.put(key, data)

    def destroy(self) -> None:
        """Delete the bucket with its objects."""
        self.restore({})
        self._remove()

    def _remove(self) -> None:
        raise NotImplementedError


class S3Bucket(Bucket):
    """A bucket in S3."""

    scheme = "s3"

    @property
    def options(self) -> dict[str, Any]:
        return {"key": "id", "secret": "secret", "endpoint_url": self.proxy.url}

    def _connect(self) -> Any:
        import boto3

        keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=self.upstream, **keys)
        client.create_bucket(Bucket=self.name)
        return client

    def etags(self) -> dict[str, str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {found["Key"]: found["ETag"] for page in pages for found in page.get("Contents", ())}

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def uploads(self) -> list[str]:
        return [upload["Key"] for upload in self._uploads()]

    def abort_uploads(self) -> None:
        for upload in self._uploads():
            self.client.abort_multipart_upload(
                Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"]
            )

    def buckets(self) -> set[str]:
        return {found["Name"] for found in self.client.list_buckets()["Buckets"]}

    def _uploads(self) -> list[dict[str, Any]]:
        return list(self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ()))

    def _remove(self) -> None:
        self.client.delete_bucket(Bucket=self.name)


# The public key of Azurite.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class AzureBucket(Bucket):
    """A container in Azure."""

    scheme = "az"

    @property
    def options(self) -> dict[str, Any]:
        return {"connection_string": _connection_string(self.proxy.url)}

    def _connect(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        service = BlobServiceClient.from_connection_string(_connection_string(self.upstream))
        return service.create_container(self.name)

    def etags(self) -> dict[str, str]:
        return {blob.name: blob.etag for blob in self.client.list_blobs()}

    def get(self, key: str) -> bytes:
        return bytes(self.client.download_blob(key).readall())

    def put(self, key: str, data: bytes) -> None:
        self.client.upload_blob(key, data, overwrite=True)

    def delete(self, key: str) -> None:
        self.client.delete_blob(key)

    def abort_uploads(self) -> None:
        for blob in self.client.list_blobs(include=["uncommittedblobs"]):
            self.put(blob.name, b"" if blob.size == 0 else self.get(blob.name))  # discards staged blocks
            if not blob.size:
                self.delete(blob.name)

    def buckets(self) -> set[str]:
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(_connection_string(self.upstream)) as service:
            return {found.name for found in service.list_containers()}

    def _remove(self) -> None:
        self.client.delete_container()
        self.client.close()


def _connection_string(url: str) -> str:
    endpoint = f"BlobEndpoint={url}/{ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={_KEY};{endpoint};"


class GcsBucket(Bucket):
    """A bucket in Google Cloud Storage."""

    scheme = "gs"

    @property
    def options(self) -> dict[str, Any]:
        return {"token": "anon", "endpoint_url": self.proxy.url}

    def _connect(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        options = {"api_endpoint": self.upstream}
        client = Client("project", credentials=AnonymousCredentials(), client_options=options)
        return client.create_bucket(self.name)

    def etags(self) -> dict[str, str]:
        return dict(sorted((blob.name, str(blob.etag)) for blob in self.client.list_blobs()))

    def get(self, key: str) -> bytes:
        return bytes(self.client.blob(key).download_as_bytes())

    def put(self, key: str, data: bytes) -> None:
        self.client.blob(key).upload_from_string(data)

    def delete(self, key: str) -> None:
        self.client.delete_blob(key)

    def buckets(self) -> set[str]:
        return {found.name for found in self.client.client.list_buckets()}

    def _remove(self) -> None:
        self.client.delete()
        self.client.client.close()


BUCKETS: dict[str, type[Bucket]] = {"s3": S3Bucket, "azure": AzureBucket, "gcs": GcsBucket}


def request_points(
    work: Callable[[], object],
    bucket: Bucket,
    disturbance: Error | str | None = None,
    *,
    lasting: bool = True,
    first: int = 1,
    step: int = 1,
) -> Iterator[Point]:
    """Run `work` again and again in a new process, and disturb its change 1, 2, 3, ... of a bucket.

    Before each run the bucket is restored to its state of the first call. The last point is that of the run
    that ended undisturbed. See `tests.kill_points.kill_points`, which does the same for folders.

    Parameters
    ----------
    work : callable
        Any function that `cloudpickle` can pickle; it writes to ``bucket.url`` with ``bucket.options``.
    bucket : Bucket
        The bucket.
    disturbance : Error or str, optional
        What happens to the request. By default the process is killed.
    lasting : bool
        Whether all later requests that change something are disturbed too.
    first, step : int
        The numbers are `first`, ``first + step``, ...
    """
    proxy, objects, number = bucket.proxy, bucket.read(), first
    try:
        while True:
            bucket.restore(objects)
            proxy.reset()
            kill = Kill()
            proxy.disturb(number, disturbance or kill, lasting=lasting)

            def started(pid: int, kill: Kill = kill) -> None:
                kill.pid = pid

            point = run_in_child(work, Path(os.devnull), started=started)
            changes = [f"{each.kind} {each.key}" for each in proxy.log if each.is_change]
            disturbed = proxy.was_disturbed
            # The caller reads the bucket undisturbed; `reset` would forget the log.
            proxy.disturb(1, DROP, matching=lambda request: False)
            yield Point(number, point.folder, changes, disturbed, point.error)
            if not disturbed:
                return
            number += step
    finally:
        proxy.reset()
