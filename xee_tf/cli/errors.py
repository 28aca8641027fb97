"""The messages of errors, with the flags of a command in place of the options of functions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from traceback import walk_tb
from typing import Any

from cyclopts import Argument, CycloptsError
from rasterio.errors import RasterioIOError

from xee_tf.errors import XeeTFError
from xee_tf.export import IMAGE_SPELLING
from xee_tf.models import HOSTED_SPELLING
from xee_tf.options import READ_SPELLING, Spelling
from xee_tf.tables import SAMPLE_SPELLING

__all__ = ["describe_error", "find_replacement", "join_values", "options_to_flags"]

_USER_ERRORS = (XeeTFError, OSError, ModuleNotFoundError)

_SPELLINGS: Mapping[str, Spelling] = {
    "export": IMAGE_SPELLING,
    "inspect": READ_SPELLING,
    "predict": HOSTED_SPELLING,
    "sample": SAMPLE_SPELLING,
    "split": IMAGE_SPELLING,
    "upload image": READ_SPELLING,
    "upload table": READ_SPELLING,
}

_NO_OPTIONS = {
    "if_exists": "use --overwrite to replace existing files",
    "progress": "progress is always shown on standard error, except with --quiet",
    "verify": "use xee-tf verify",
}
"""Options of functions, and what commands have instead."""

_RESAMPLE = "rasters keep their pixel grid; resample them first, for example with rio warp --res 30"

_PYTHON = {
    "scale": _RESAMPLE,
    "crsTransform": _RESAMPLE,
    "dimensions": _RESAMPLE,
    "projection": _RESAMPLE,
    "collection": "the command exports rasters; export a table in Python, with xee_tf.export_table",
}
"""Options of Earth Engine whose replacement is Python code, and what to do in a shell."""

_ADVICE = (
    (r"Write one, for example ds\.rio\.write_crs\('EPSG:32633'\), or pass crs=\.", "Pass crs='EPSG:32633'."),
    (r"open it with xee_tf\.open_(image|table)", r"convert it with xee-tf upload \1"),
    (r"xee_tf\.open_(image|table)", r"xee-tf upload \1"),
    (r", a folder that contains one, or an export result", " or a folder that contains one"),
    (r", as the first argument, and (the shards|this file) as records=(\[\.\.\.\] if [^.]*)?\.", "."),
    (r"Pass them as storage_options=\{\.\.\.\}", "Set the environment variables of the store"),
    (r"Pass storage_options=\{[^}]*\}, or set", "Set"),
    (r"Check the storage options", "Check the environment variables and the configuration of the store"),
    (r"(chunks of the (?:input|output) '[^']*') were", r"\1 (--chunk) were"),
    (r"in the same chunks;", "in the same chunks (--chunk);"),
    (r"pass (them|the shards) as records=\[\.\.\.\]", r"give \1 to xee-tf upload image before the mixer"),
    (r"(run it again|call it) with if_exists='resume'", "run it again with --resume"),
    (r"open it with rioxarray\.open_rasterio", "show it with rio info"),
    (
        r"Select the bands without it, for example ds\[\[.*?\]\]",
        "Select the bands without it with bands=[...]",
    ),
)
"""Python code in messages, as patterns, and what to write instead."""


_SCHEDULER_LOST = (
    "The connection to the scheduler was lost: it has ended, or the network has failed. Check that it is "
    "running, and run the command again."
)
_LOST = {
    "CancelledError": _SCHEDULER_LOST,
    "FutureCancelledError": _SCHEDULER_LOST,
    "FuturesCancelledError": _SCHEDULER_LOST,
    "CommClosedError": _SCHEDULER_LOST,
    "KilledWorker": (
        "Several workers ended while they computed the same part, probably because their memory was not "
        "sufficient. Look at their logs, give them more memory or pass a smaller --chunk, and run the "
        "command again."
    ),
}
"""Errors of Dask when a part of a cluster is lost, by the names of their classes."""


def describe_error(error: BaseException) -> str | None:
    """Return the message of an error; None for a bug, which has a traceback.

    Errors while rasters are read name the file: those of GDAL in their cause, others not at all. Notes, which
    say what is kept, follow.
    """
    described = _describe(error)
    return None if described is None else " ".join([described, *getattr(error, "__notes__", [])])


def _describe(error: BaseException) -> str | None:
    if (lost := _LOST.get(type(error).__name__)) and not isinstance(error, XeeTFError):
        return lost
    if isinstance(error, RasterioIOError) and error.__cause__ is not None:
        file, why = "A raster", str(error.__cause__)
    elif found := _file_read(error):
        file, why = found, str(error)
    else:
        return str(error) if isinstance(error, _USER_ERRORS) else None
    why = why.rstrip(".")
    return f"{file} cannot be read: {why}. It may be damaged or incomplete: copy or download it again."


def _file_read(error: BaseException) -> str:
    """Return the file or Zarr array that xarray was reading when an error was raised; empty if none."""
    if isinstance(error, XeeTFError | MemoryError) or getattr(error, "errno", None) is not None:
        return ""
    for frame, _ in walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("xarray.backends.") and frame.f_code.co_name == "__getitem__":
            array: Any = frame.f_locals.get("self")
            zarr = getattr(getattr(array, "_array", None), "store_path", None)
            file = zarr or getattr(getattr(array, "datastore", None), "_filename", None)
            return str(file or "A raster").removeprefix("file://")
    return ""


def find_replacement(command: Sequence[str], flag: str) -> str:
    """Describe what replaces an option of Earth Engine or of a public function; empty if nothing does.

    Examples
    --------
    >>> find_replacement(["export"], "--if-exists")
    'use --overwrite to replace existing files'
    """
    if (spelling := _SPELLINGS.get(" ".join(command).removeprefix("plan "))) is None:
        return ""
    replaced = {**spelling.replaced, **_NO_OPTIONS}
    return next((_PYTHON.get(name, why) for name, why in replaced.items() if _flag(name) == flag), "")


def options_to_flags(message: str, arguments: Iterable[Argument], tokens: Sequence[str]) -> str:
    """Replace the options and the Python code in a message by the flags of a command.

    Paths must not change: an option is not replaced if it also occurs in the command line, the current folder
    or the home folder.
    """
    flags = {each.field_info.name: each for each in arguments if each.name.startswith("--")}
    typed = [token.partition("=")[2] if token.startswith("--") else token for token in tokens]
    paths = "\n".join([*typed, os.getcwd(), os.path.expanduser("~")])

    def replace(match: re.Match[str]) -> str:
        whole, name, value = match[0], match["name"], match["value"] or ""
        if f"{name}=" in paths:
            return whole
        if name == "if_exists":
            flag = value.strip("'")
            return f"--{flag}" if flag in flags else whole
        if name not in flags:
            return whole
        argument = flags[name]
        if value == "False" and argument.negatives:
            return str(argument.negatives[0])
        return f"{argument.name} {_to_shell(value)}".rstrip()

    def replace_name(match: re.Match[str]) -> str:
        name = match[0]
        before, after = message[: match.start()], message[match.end() :]
        sure = not before and after.startswith(" must ")
        sure = sure or (before.endswith(" option ") and f" option {name}" not in paths)
        return flags[name].name if name in flags and (sure or name not in paths) else name

    for pattern, advice in _ADVICE:
        if (match := re.search(pattern, message)) and match[0] not in paths:
            message = message.replace(match[0], match.expand(advice))
    return _NAME.sub(replace_name, _OPTION.sub(replace, message))


def join_values(
    error: BaseException, arguments: Iterable[Argument], tokens: Sequence[str]
) -> Iterator[tuple[str, str, list[str]]]:
    """Yield command lines with ``--bands B4,B3`` for ``--bands B4 B3``, in which B3 is taken for a path.

    Only usage errors, files that cannot be opened and messages that contain B3 are considered.

    Parameters
    ----------
    error : BaseException
        The error of the command.
    arguments : iterable of Argument
        Options of the command.
    tokens : sequence of str
        The command line.

    Yields
    ------
    flag, value : str
        The option and its corrected value.
    corrected : list of str
        The corrected command line. It is not necessarily valid.
    """
    always = isinstance(error, (OSError, CycloptsError))
    named = set(re.findall(r"[^\s'\"/\\:;]+", str(error)))
    lists = {name for each in arguments if "[," in (each.parameter.metavar or "") for name in each.names}
    for index, token in enumerate(tokens):
        flag, equals, value = token.partition("=")
        if token == "--":
            break
        if flag not in lists:
            continue
        first = index + (1 if equals else 2)
        values = [value] if equals else list(tokens[index + 1 : first])
        names = list(takewhile(_is_bare_name, tokens[first:]))
        for count in range(len(names), 0, -1):
            if always or named.intersection(names[:count]):
                joined = ",".join([*values, *names[:count]])
                yield flag, joined, [*tokens[:index], flag, joined, *tokens[first + count :]]


def _is_bare_name(token: str) -> bool:
    """Whether an argument looks like a name rather than an option or a path."""
    path = Path(token)
    return (
        not token.startswith("-") and path.name == token and not path.suffix and not os.path.exists(token)
    )  # False for names that are too long


_OPTION = re.compile(
    r"""
    (?<![\w'"/\\.-])
    (?P<name>[a-z]+(?:_[a-z]+)*)
    =
    (?P<value>'[^']*' | True | False | \[\.\.\.\] | \{[^}]*\} | \(\d+(?:,\ \d+)*\) | \d+(?:\.\d+)?)?
    (?=[,.:;)]?(?:\s|$))
    """,
    re.VERBOSE,
)


_NAME = re.compile(
    r"""
    ^[a-z]+(?=\ must\ )
    | (?<=\ option\ )[a-z]+(?=\ was\ )
    | (?<![\w'"/\\.-])[a-z]+(?:_[a-z]+)+(?=[,.:;)\[]?(?:\s|$|'))
    """,
    re.VERBOSE,
)
"""An option that starts a message, one that had another value, or one whose name has several words."""


def _to_shell(value: str) -> str:
    """Convert a Python literal to shell syntax; empty for placeholders such as ``[...]``."""
    if value.startswith("'"):
        return value.strip("'")
    if value[:1].isdigit():
        return value
    if pair := re.fullmatch(r"\{'([^']+)': '([^']+)'\}", value):
        return f"{pair[1]}={pair[2]}"
    return " ".join(re.findall(r"\d+", value)) if value.startswith("(") else ""


def _flag(name: str) -> str:
    """Convert an option's name, in either spelling, to a flag."""
    return "--" + re.sub("(?<=[a-z0-9])([A-Z])", r"-\1", name).replace("_", "-").lower()
