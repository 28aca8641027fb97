"""Kill a process before each of its changes of a folder, or make the change fail."""

from __future__ import annotations

import atexit
import builtins
import errno
import io
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import cloudpickle

__all__ = ["Point", "kill_points", "run_in_child"]

Action = Literal["kill", "stop"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NEED_SPACE = frozenset({"create", "write", "truncate", "mkdir", "link", "symlink"})
_CHANGES = {
    "os.rename": "rename",  # also os.replace
    "os.link": "link",
    "os.symlink": "symlink",
    "os.remove": "remove",  # also os.unlink
    "os.rmdir": "rmdir",
    "os.mkdir": "mkdir",
    "os.truncate": "truncate",
}
_WRITES = ("write", "pwrite", "writev", "pwritev")
_OTHERS = ("fsync", "fdatasync", "posix_fallocate", "copy_file_range", "sendfile")


@dataclass
class Point:
    """A process that was disturbed before its change `number`, or that ended before it got so far.

    Parameters
    ----------
    number : int
        The number of the change, from 1.
    folder : Path
        The folder as the process left it.
    changes : list of str
        The changes that were tried, such as ``rename s-00000.tfrecord.gz``.
    disturbed : bool
        False for the last point of all: the process made fewer than `number` changes.
    error : str, optional
        The error with which the work ended, as type and message.
    """

    number: int
    folder: Path
    changes: list[str] = field(default_factory=list)
    disturbed: bool = True
    error: str | None = None
    _resume: Callable[[], dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def what(self) -> str:
        """The change that was disturbed."""
        return self.changes[self.number - 1] if self.disturbed else "nothing"

    def resume(self) -> Point:
        """Let a stopped process go on, and wait for its end."""
        assert self._resume is not None, "the process is not stopped"
        report = self._resume()
        self._resume = None
        return Point(self.number, self.folder, report["changes"], True, report["error"])


def kill_points(
    work: Callable[[], object],
    folder: Path | str,
    *,
    error: int | None = None,
    action: Action = "kill",
    first: int = 1,
    step: int = 1,
) -> Iterator[Point]:
    """Run `work` again and again in a new process, and disturb it before its change 1, 2, 3, ... of a folder.

    Before each run the folder is restored to its state of the first call. The last point is that of the run
    that ended undisturbed. A change is what Python's audit events show (files that are created, opened for
    writing, renamed, linked and removed; folders), a write of a file that Python opened, and a call of
    functions such as `os.pwrite` and `os.fsync`. What C libraries such as GDAL write is not noticed. If the
    disturbed change is a write, half of the bytes are written.

    Dask computes in one thread, so that the order of changes is the same in each run; `work` may choose
    another scheduler. A process costs about 0.1 s, because it is forked from one that has imported the
    module of `work` and what earlier runs needed.

    Parameters
    ----------
    work : callable
        Any function that `cloudpickle` can pickle, so also one defined in a test.
    folder : path
        The folder whose changes count, with its subfolders.
    error : int, optional
        Raise an `OSError` with this number instead of killing the process. A full disk (``ENOSPC``,
        ``EDQUOT``) stays full: later changes that need space fail too.
    action : {"kill", "stop"}
        With "stop" the process is halted until `Point.resume` is called, or the next point is asked for.
    first, step : int
        The numbers are `first`, ``first + step``, ...
    """
    folder = Path(os.path.realpath(folder))
    task = cloudpickle.dumps(work)
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True, symlinks=True)
        number = first
        while True:
            _restore(folder, Path(copy))
            report = _parent().run(task, str(folder), number, error, action)
            resume = _parent().resume if report["stopped"] else None
            point = Point(
                number, folder, report["changes"], report["disturbed"], report["error"], _resume=resume
            )
            try:
                yield point
            finally:
                if point._resume is not None:
                    point.resume()
            if not point.disturbed:
                return
            number += step


def run_in_child(
    work: Callable[[], object], folder: Path | str, *, started: Callable[[int], object] = lambda pid: None
) -> Point:
    """Run `work` undisturbed in a new process, and return its changes of a folder.

    Parameters
    ----------
    work : callable
        Any function that `cloudpickle` can pickle.
    folder : path
        The folder whose changes count.
    started : callable
        Called with the id of the process before the work begins.
    """
    folder = Path(os.path.realpath(folder))
    report = _parent().run(cloudpickle.dumps(work), str(folder), sys.maxsize, None, "kill", started=started)
    return Point(sys.maxsize, folder, report["changes"], report["disturbed"], report["error"])


def _restore(folder: Path, copy: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry)
        else:
            os.unlink(entry)
    shutil.copytree(copy, folder, dirs_exist_ok=True, symlinks=True)


# -- The process that all others are forked from -------------------------------------------------------


class _Parent:
    """A process without threads, from which each run is forked; it does the imports once."""

    def __init__(self) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; import xee_tf; "
        code += "from tests.kill_points import _serve; _serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._requests: Any = self._process.stdin
        self._answers: Any = self._process.stdout
        atexit.register(self.close)

    def run(self, *request: Any, started: Callable[[int], object] = lambda pid: None) -> dict[str, Any]:
        started(self._ask(request)["pid"])
        return self._ask("start")

    def resume(self) -> dict[str, Any]:
        return self._ask("resume")

    def _ask(self, request: Any) -> dict[str, Any]:
        _send(self._requests, request)
        answer: dict[str, Any] = _receive(self._answers)
        if "failure" in answer:
            raise RuntimeError(answer["failure"])
        return answer

    def close(self) -> None:
        with suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()


@cache
def _parent() -> _Parent:
    return _Parent()


def _send(stream: Any, value: Any) -> None:
    data = pickle.dumps(value)
    stream.write(struct.pack("<Q", len(data)) + data)
    stream.flush()


def _receive(stream: Any) -> Any:
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    return pickle.loads(stream.read(*struct.unpack("<Q", head)))


def _serve() -> None:
    """Fork a process for each request; runs until the standard input ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the work prints must not get into the answers
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    child = 0
    with tempfile.TemporaryDirectory() as temporary:
        report = os.path.join(temporary, "report.json")
        while True:
            try:
                request = _receive(requests)
            except EOFError:
                return
            try:
                if request in ("start", "resume"):
                    os.kill(child, signal.SIGCONT)
                    _send(answers, _wait(child, report))
                else:
                    pickle.loads(request[0])  # imports the module of the work
                    child = _fork(report, *request)
                    os.waitpid(child, os.WUNTRACED)
                    _send(answers, {"pid": child})
            except BaseException:
                _send(answers, {"failure": traceback.format_exc()})


def _fork(report: str, task: bytes, *settings: Any) -> int:
    with suppress(FileNotFoundError):
        os.unlink(report)
    child = os.fork()
    if child:
        return child
    with suppress(BaseException):
        os.setpgid(0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)  # until its parent knows its id
        _run(task, _Changes(report, set(sys.modules), *settings))
    os._exit(1)


def _wait(child: int, report: str) -> dict[str, Any]:
    _, status = os.waitpid(child, os.WUNTRACED)
    stopped = os.WIFSTOPPED(status)
    if not stopped:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # processes that the work started
    if os.WIFSIGNALED(status) and not os.path.exists(report):  # killed by another process
        return {"changes": [], "disturbed": True, "error": None, "stopped": False}
    with open(report) as file:
        found: dict[str, Any] = json.load(file)
    if not stopped and not found["ended"] and not os.WIFSIGNALED(status):
        raise RuntimeError(f"The process of a kill point ended with status {status}.")
    for name in found.pop("modules"):
        with suppress(Exception):
            import_module(name)  # so that the next process need not
    return {**found, "stopped": stopped}


# -- In the process that is disturbed ------------------------------------------------------------------


def _run(task: bytes, changes: _Changes) -> None:
    import dask

    dask.config.set(scheduler="synchronous")
    work = pickle.loads(task)
    changes.watch()
    error = None
    try:
        work()
    except BaseException as raised:
        error = f"{type(raised).__name__}: {raised}"
    changes.write_report(error, ended=True)
    os._exit(0)


class _Changes:
    """Counts the changes of a folder, and disturbs one of them."""

    def __init__(
        self, report: str, modules: set[str], folder: str, number: int, error: int | None, action: Action
    ) -> None:
        self.report, self.modules = report, modules
        self.folder, self.number, self.error, self.action = folder, number, error, action
        self.seen: list[str] = []
        self.lock = threading.Lock()

    def watch(self) -> None:
        """Notice changes from now on."""
        sys.addaudithook(self._audit)
        for name in _WRITES:
            if hasattr(os, name):
                setattr(os, name, self._torn(getattr(os, name)))
        for name in _OTHERS:
            if hasattr(os, name):
                setattr(os, name, self._noticed(getattr(os, name), name))
        builtins.open = io.open = self._opener(io.open)

    def write_report(self, error: str | None = None, *, ended: bool = False) -> None:
        """Write what happened so far to a file, because the process may be killed next."""
        found = {
            "changes": self.seen[: self.number] if not ended else self.seen,
            "disturbed": len(self.seen) >= self.number,
            "error": error,
            "ended": ended,
            "modules": sorted(name for name in set(sys.modules) - self.modules if name.isascii()),
        }
        with open(self.report, "w") as file:
            json.dump(found, file)

    def change(self, kind: str, path: Any, torn: Callable[[], object] | None = None) -> None:
        """Count a change, and disturb it if it is the one; `torn` does half of it."""
        name = self._inside(path)
        if name is None:
            return
        with self.lock:
            self.seen.append(f"{kind} {name}")
            count = len(self.seen)
        full = self.error in _FULL
        if count < self.number or (count > self.number and not full):
            return
        if full and kind not in _NEED_SPACE:
            return
        if torn is not None and (self.error is not None or self.action == "kill"):
            torn()  # a process that goes on does all of it afterwards
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error), os.path.join(self.folder, name))
        self.write_report()
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)

    def _inside(self, path: Any) -> str | None:
        """Return the path relative to the folder; None if it is elsewhere."""
        if isinstance(path, int):
            path = _path_of(path)
        path = os.path.abspath(os.fsdecode(path))
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        return path[len(self.folder) + 1 :] if path.startswith(self.folder + os.sep) else None

    def _audit(self, event: str, values: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = values
            if isinstance(path, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                return
            if path is not None and self._inside(path) is not None:
                exists = os.path.lexists(path)
                if not exists or flags & os.O_TRUNC or not flags & os.O_CREAT:
                    self.change("open" if exists else "create", path)
        elif (kind := _CHANGES.get(event)) is not None:
            for path in _paths(event, values):
                if self._inside(path) is not None:
                    self.change(kind, path)
                    return

    def _torn(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function of `os` that writes to a file descriptor."""

        def write(descriptor: int, data: Any, *more: Any) -> Any:
            def half() -> None:
                if isinstance(data, bytes | bytearray | memoryview):
                    view = memoryview(data).cast("B")
                    function(descriptor, view[: len(view) // 2], *more)

            self.change("write", descriptor, half)
            return function(descriptor, data, *more)

        return write

    def _noticed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Wrap another function of `os` whose first argument is a file descriptor."""
        kind = "sync" if name in ("fsync", "fdatasync") else "write"

        def call(descriptor: int, *more: Any, **options: Any) -> Any:
            self.change(kind, descriptor)
            return function(descriptor, *more, **options)

        return call

    def _opener(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `open`, so that writes of its files are noticed."""
        changes = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                view = memoryview(data).cast("B")

                def half() -> None:
                    super(Raw, self).write(view[: len(view) // 2])

                changes.change("write", self.fileno(), half)
                return super().write(view)

            def truncate(self, size: int | None = None) -> int:
                changes.change("truncate", self.fileno())
                return super().truncate(size)

        def open_(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if not set("wax+") & set(mode):
                return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            if buffering == 0:
                return raw
            size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
            buffer: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, size)
            if "b" in mode:
                return buffer
            text = io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)
            text.mode = mode
            return text

        return open_


def _paths(event: str, values: tuple[Any, ...]) -> list[Any]:
    """Return the paths of an audit event, relative ones resolved in their folder."""
    count = 2 if event in ("os.rename", "os.link", "os.symlink") else 1
    paths, folders = values[:count], [value for value in values[count:] if isinstance(value, int)]
    if event == "os.mkdir":
        folders = [values[2]]
    elif event == "os.symlink":
        paths, folders = values[1:2], [values[2]]
    elif event == "os.truncate":
        folders = []
    found = []
    for index, path in enumerate(paths):
        folder = folders[min(index, len(folders) - 1)] if folders else -1
        if folder >= 0 and not isinstance(path, int):
            path = os.path.join(_path_of(folder), os.fsdecode(path))
        found.append(path)
    return found[::-1]  # the target of a rename first


def _path_of(descriptor: int) -> str:
    """Return the path of an open file."""
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
