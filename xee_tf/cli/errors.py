"""The errors of public functions, told with the flags of a command."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from cyclopts import Argument

from xee_tf.errors import XeeTFError
from xee_tf.export import IMAGE_SPELLING
from xee_tf.models import MODEL_SPELLING
from xee_tf.options import READ_SPELLING, Spelling

__all__ = ["USER_ERRORS", "instead", "with_flags"]

USER_ERRORS = (XeeTFError, OSError, ModuleNotFoundError)
"""What is printed in one line; all else is a mistake of ours."""

_SPELLINGS: Mapping[str, Spelling] = {
    "export": IMAGE_SPELLING,
    "predict": MODEL_SPELLING,
    "upload image": READ_SPELLING,
    "upload table": READ_SPELLING,
}

_IF_EXISTS = "--overwrite replaces what is there, and without it that is an error"


def instead(command: Sequence[str], flag: str) -> str:
    """What takes the place of an option of Earth Engine, or of our functions; empty if nothing does.

    Examples
    --------
    >>> instead(["export"], "--max-pixels")
    'there is no limit; omit it'
    """
    if (spelling := _SPELLINGS.get(" ".join(command))) is None:
        return ""
    replaced = {**spelling.replaced, "if_exists": _IF_EXISTS}
    return next((why for name, why in replaced.items() if _flag(name) == flag), "")


def with_flags(message: str, arguments: Iterable[Argument], words: Sequence[str]) -> str:
    """The options that a message names, as the flags of a command.

    Paths stay as they are: where an option's name is also in what was typed, in the current folder or in the
    home folder, it is left alone.
    """
    flags = {each.field_info.name: each for each in arguments if each.name.startswith("--")}
    typed = [word.partition("=")[2] if word.startswith("--") else word for word in words]
    taken = "\n".join([*typed, os.getcwd(), os.path.expanduser("~")])

    def flag(found: re.Match[str]) -> str:
        whole, name, value = found[0], found["name"], found["value"] or ""
        if name in taken:
            return whole
        if name == "if_exists":
            return "--overwrite" if "overwrite" in flags and value == "'overwrite'" else whole
        if name not in flags:
            return whole
        argument = flags[name]
        if value == "False" and argument.negatives:
            return str(argument.negatives[0])
        return f"{argument.name} {_typed(value)}".rstrip()

    return _OPTION.sub(flag, message)


_OPTION = re.compile(
    r"""
    (?<![\w'"/\\.-])
    (?P<name>[a-z]+(?:_[a-z]+)*)
    =
    (?P<value>'[^']*' | True | False | \[\.\.\.\] | \{[^}]*\} | \(\d+(?:,\ \d+)*\) | \d+)?
    (?=[,.:;)]?(?:\s|$))
    """,
    re.VERBOSE,
)


def _typed(value: str) -> str:
    """A value of Python as it is typed in a shell; empty if it is only an example of its kind."""
    if value.startswith("'"):
        return value.strip("'")
    if pair := re.fullmatch(r"\{'([^']+)': '([^']+)'\}", value):
        return f"{pair[1]}={pair[2]}"
    return " ".join(re.findall(r"\d+", value)) if value[:1] in (*"(0123456789",) else ""


def _flag(name: str) -> str:
    """A name in Earth Engine's spelling or in ours as a flag."""
    return "--" + re.sub("(?<=[a-z0-9])([A-Z])", r"-\1", name).replace("_", "-").lower()
