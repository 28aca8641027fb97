"""Serve the page and the tiles of a map to the browser, on the loopback address."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from xee_tf.errors import OptionError, shorten
from xee_tf.exploring.chunk_cache import NotWantedError
from xee_tf.exploring.levels import DEEPEST
from xee_tf.exploring.saving import page_html
from xee_tf.exploring.tiles import TileError, Tiles

__all__ = ["MapServer"]

_IDLE_SECONDS = 60.0
_CACHED = "private, max-age=86400"  # the address of a map is used only once
_FILES = {"leaflet.js": "text/javascript", "leaflet.css": "text/css", "map.js": "text/javascript"}

Answer = tuple[int, str, bytes, str]
"""The status, the type, the body and the caching of a resource."""


class MapServer:
    """A server of one map, in threads of this process.

    The standard library's server is sufficient: it has one user. Addresses contain a secret, because every
    user of the machine and every page in the browser could send requests.

    Parameters
    ----------
    tiles : sequence of Tiles
        The layers.
    page : mapping
        What the page must know, in addition to the layers.
    port : int
        The port; 0 selects a free one.

    Raises
    ------
    OptionError
        If the port is in use.
    """

    def __init__(self, tiles: Sequence[Tiles], page: Mapping[str, Any], port: int) -> None:
        self.secret = secrets.token_urlsafe(16)
        self.problems: dict[str, str] = {}
        """The last error of each layer, which the page shows."""
        self._tiles, self._page = tiles, page
        # Dask's client and configuration may be those of a context.
        self._context: Context = copy_context()
        self.is_closed = False
        try:
            self._http = _HTTPServer(("127.0.0.1", port), partial(_Handler, self))
        except OSError as error:
            raise OptionError(f"The map cannot listen on port {port}: {error.strerror}.") from None
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name="xee-tf-explore", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop the server; tiles that are being computed are not awaited."""
        self.is_closed = True
        if threading.current_thread() is self._thread:  # of the garbage collector, which runs in any thread
            threading.Thread(target=self._stop, daemon=True).start()
        else:
            self._stop()

    def _stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, path: str, is_wanted: Callable[[], bool]) -> Answer | None:
        """Return a resource, or None if there is none."""
        first, *parts = path.partition("?")[0].removeprefix("/").split("/")
        if not secrets.compare_digest(first.encode(), self.secret.encode()):
            return None
        match parts:
            case [""]:
                return 200, "text/html; charset=utf-8", self._html(), "no-store"
            case [name] if name in _FILES:
                folder = files("xee_tf.exploring") / ("page" if name == "map.js" else "leaflet")
                return 200, f"{_FILES[name]}; charset=utf-8", (folder / name).read_bytes(), _CACHED
            case ["problems"]:
                return _json(200, self.problems)
            case ["legends" | "tiles" as kind, number, *place]:
                tiles, at = self._layer(number), _place(place)
                if tiles is not None and kind == "legends" and not place:
                    return self._try(tiles, partial(_legend, tiles))
                if tiles is not None and kind == "tiles" and at is not None:
                    return self._try(tiles, partial(_tile, tiles, at, is_wanted))
        return None

    def _layer(self, number: str) -> Tiles | None:
        is_layer = (
            number.isascii() and number.isdigit() and len(number) < 5 and int(number) < len(self._tiles)
        )
        return self._tiles[int(number)] if is_layer else None

    def _try(self, tiles: Tiles, work: Callable[[], Answer]) -> Answer:
        """Do work in the context of the map; an error is kept for the page."""
        try:
            return self._context.copy().run(work)
        except (NotWantedError, TileError) as error:
            return _json(404, {"error": str(error)})
        except Exception as error:
            text = shorten(f"{type(error).__name__}: {error}")
            self.problems[tiles.layer.name] = text
            return _json(500, {"error": text})

    def _html(self) -> bytes:
        return page_html({**self._page, "layers": [tiles.describe() for tiles in self._tiles]}).encode()


def _legend(tiles: Tiles) -> Answer:
    return _json(200, tiles.legend())


def _tile(tiles: Tiles, at: tuple[int, int, int], is_wanted: Callable[[], bool]) -> Answer:
    return 200, "image/png", tiles.tile(*at, is_wanted), _CACHED


def _json(status: int, value: Any) -> Answer:
    return status, "application/json", json.dumps(value).encode(), "no-store"


def _place(parts: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the zoom, column and row of a tile, if it exists."""
    if len(parts) != 3 or not parts[2].endswith(".png"):
        return None
    texts = [*parts[:2], parts[2].removesuffix(".png")]
    if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts):
        return None
    zoom, x, y = map(int, texts)
    return (zoom, x, y) if zoom <= DEEPEST and max(x, y) < 1 << zoom else None


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that the browser ends."""


class _Handler(BaseHTTPRequestHandler):
    """Answer the requests of one connection."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True

    def __init__(self, server: MapServer, *args: Any) -> None:
        self._map = server
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer a request."""
        found = self._map.answer(self.path, self._is_connected)
        status, kind, body, caching = found or (404, "text/plain", b"There is no such map.", "no-store")
        with suppress(ConnectionError):  # the browser does not wait any more
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", caching)
            # Servers of base maps get the origin only, and not the secret.
            self.send_header("Referrer-Policy", "origin")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)
        if self._map.is_closed:
            self.close_connection = True

    def _is_connected(self) -> bool:
        """Return whether the browser still waits: it ends the connection of a tile that it does not need."""
        if self._map.is_closed:
            return False
        self.connection.settimeout(0)
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.connection.settimeout(self.timeout)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""
