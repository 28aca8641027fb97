"""The messages of errors, with the flags of a command in place of the options of functions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

from cyclopts import (
    App,
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from xee_tf.errors import XeeTFError
from xee_tf.export import IMAGE_SPELLING
from xee_tf.models import MODEL_SPELLING
from xee_tf.options import READ_SPELLING, Spelling

__all__ = ["USER_ERRORS", "describe_usage_error", "find_replacement", "join_values", "options_to_flags"]

USER_ERRORS = (XeeTFError, OSError, ModuleNotFoundError)
"""Errors that are printed as one line. All others are bugs and have a traceback."""

_SPELLINGS: Mapping[str, Spelling] = {
    "export": IMAGE_SPELLING,
    "predict": MODEL_SPELLING,
    "upload image": READ_SPELLING,
    "upload table": READ_SPELLING,
}

_NO_OPTIONS = {
    "if_exists": "use --overwrite to replace existing files",
    "progress": "progress is always shown in a terminal",
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

_BANDS = ("--bands", "--columns", "--selectors")
"""Names of the same option in several commands and in Earth Engine."""

_PATHS = ("--path", "--store", "--destination", "--prefix", "--file-name-prefix", "--output-prefix")
"""Options of other commands and functions for the output, which is the last argument here."""

_ADVICE = (
    (r"Write one, for example ds\.rio\.write_crs\('EPSG:32633'\), or pass crs=\.", "Pass crs='EPSG:32633'."),
    (r"open it with xee_tf\.open_(image|table)", r"convert it with xee-tf upload \1"),
    (r"xee_tf\.open_(image|table)", r"xee-tf upload \1"),
    (r", a folder that contains one, or an export result", " or a folder that contains one"),
    (r", as the first argument, and (the shards|this file) as records=(\[\.\.\.\] if [^.]*)?\.", "."),
    (r"open it with rioxarray\.open_rasterio", "show it with rio info"),
    (
        r"Select the bands without it, for example ds\[\[.*?\]\]",
        "Select the bands without it with bands=[...]",
    ),
)
"""Python code in messages, as patterns, and what to write instead."""


def describe_usage_error(
    error: CycloptsError, arguments: Sequence[Argument], app: App, tokens: Sequence[str], typed: Sequence[str]
) -> str:
    """Describe an error in a command line.

    Parameters
    ----------
    error : CycloptsError
        The error.
    arguments : sequence of Argument
        Options and positional arguments of the command.
    app : App
        The application that parses command lines.
    tokens : sequence of str
        The command line.
    typed : sequence of str
        The command line before flags in Earth Engine's spelling were converted.
    """
    argument = error.argument
    if isinstance(error, UnknownOptionError):
        token = error.token.keyword or error.token.value
        name = typed[tokens.index(token)] if token in tokens else token
        return _unknown_option(error.command_chain or (), token.split("=")[0], name.split("=")[0], arguments)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return _unexpected_argument(error.unused_tokens[0], arguments)
    if isinstance(error, MissingArgumentError) and argument:
        if not argument.name.startswith("-"):
            return _missing_arguments(arguments, app, tokens)
        if error.keyword is None:
            return f"{argument.name} {argument.parameter.metavar or ''}".rstrip() + " is missing."
        given = error.tokens_so_far
        if not given and error.keyword in tokens:  # "-1,2,3,4" is parsed as an option
            given = list(takewhile(_is_numeric, tokens[tokens.index(error.keyword) + 1 :]))
        return _wrong_value(argument, " ".join(list(takewhile(_is_numeric, given)) or given))
    if isinstance(error, CoercionError) and error.msg is None and argument and error.token:
        if argument.hint is bool:
            return f"{argument.name} takes no value; got {error.token.value!r}."
        if _kind(argument):
            return _wrong_value(argument, error.token.value)
    return str(error)


def _unknown_option(command: Sequence[str], flag: str, typed: str, arguments: Sequence[Argument]) -> str:
    flags = [name for each in arguments for name in each.names if name.startswith("--")]
    positional = [each.name for each in arguments if not each.name.startswith("-")]
    if flag in _BANDS and (same := [name for name in _BANDS if name in flags]):
        return f"Unknown option {typed}: use {same[0]}."
    if flag[2:].upper().replace("-", "_") in positional:
        return f"Unknown option {typed}: give {flag[2:].upper()} without an option."
    if flag in _PATHS and positional:
        return f"Unknown option {typed}: give {positional[-1]} without an option."
    if replacement := find_replacement(command, flag):
        if command == ("export",):
            replacement = replacement.replace("the destination", "PREFIX")
        return f"Unknown option {typed}: {options_to_flags(replacement, arguments, ())}."
    names = {name.removeprefix("--"): name for name in flags}
    close = get_close_matches(flag.lstrip("-"), names, n=1)
    return f"Unknown option {typed}" + (f"; did you mean {names[close[0]]}?" if close else ".")


def _unexpected_argument(token: str, arguments: Sequence[Argument]) -> str:
    form = _positional_form(arguments)
    if "..." in form:
        return f"Unexpected argument {token!r}: give {form} together, without options between them."
    return f"Unexpected argument {token!r}: " + (
        f"the command takes only {form}." if form else "the command takes only options."
    )


def _missing_arguments(arguments: Sequence[Argument], app: App, tokens: Sequence[str]) -> str:
    """Name the last arguments: the parser assigns those given to the last ones, a user to the first."""
    names = [each.name for each in arguments if not each.name.startswith("-")]
    for count in range(1, len(names)):
        try:
            app.parse_args([*tokens, *["x"] * count], exit_on_error=False, print_error=False)
        except CycloptsError:
            continue
        names = names[-count:]
        break
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    verb = "is" if len(names) == 1 else "are"
    return f"{listed} {verb} missing: the command takes {_positional_form(arguments)}."


def _positional_form(arguments: Sequence[Argument]) -> str:
    """Return the positional arguments, with an ellipsis where there may be several: ``RASTERS... PREFIX``."""
    names = [each for each in arguments if not each.name.startswith("-")]
    return " ".join(each.name + ("..." if each.token_count()[1] else "") for each in names)


def _wrong_value(argument: Argument, value: str) -> str:
    metavar, kind = argument.parameter.metavar or "a value", _kind(argument)
    message = f"{argument.name} takes {metavar}{', ' if kind else ''}{kind}; "
    if not value:
        return message + "its value is missing."
    parts = re.split("[,;xX×]", value)
    if len(parts) == argument.token_count()[0] > 1 and all(map(_is_numeric, parts)):
        hint = f" Separate numbers by spaces: {argument.name} {' '.join(parts)}."
        return f"{message}got {value!r}.{hint}"
    return f"{message}got {value!r}."


def _kind(argument: Argument) -> str:
    """Describe the numbers that an option takes; empty for text."""
    kind = re.search(r"\b(int|float)\b", str(argument.hint))
    if kind is None or argument.parameter.converter is not None:
        return ""
    number = "number" if "float" in str(argument.hint) else "whole number"
    return f"{number}s" if argument.token_count()[0] > 1 else f"a {number}"


def _is_numeric(token: str) -> bool:
    return re.fullmatch(r"[-+\d.,;xX×e]+", token) is not None


def find_replacement(command: Sequence[str], flag: str) -> str:
    """Describe what replaces an option of Earth Engine or of a public function; empty if nothing does.

    Examples
    --------
    >>> find_replacement(["export"], "--if-exists")
    'use --overwrite to replace existing files'
    """
    if (spelling := _SPELLINGS.get(" ".join(command))) is None:
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
            return "--overwrite" if "overwrite" in flags and value == "'overwrite'" else whole
        if name not in flags:
            return whole
        argument = flags[name]
        if value == "False" and argument.negatives:
            return str(argument.negatives[0])
        return f"{argument.name} {_to_shell(value)}".rstrip()

    def replace_name(match: re.Match[str]) -> str:
        name = match[0]
        return flags[name].name if name in flags and name not in paths else name

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
    return not token.startswith("-") and path.name == token and not path.suffix and not path.exists()


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


_NAME = re.compile(r"^[a-z]+(?= must )|(?<![\w'\"/\\.-])[a-z]+(?:_[a-z]+)+(?=[,.:;)\[]?(?:\s|$|'))")
"""An option that starts a message, or one whose name has several words."""


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
