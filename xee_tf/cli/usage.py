"""Describe errors in a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import takewhile

from cyclopts import (
    App,
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from xee_tf.cli.errors import find_replacement, options_to_flags

__all__ = ["describe_usage_error"]

_BANDS = ("--bands", "--columns", "--selectors")
"""Names of the same option in several commands and in Earth Engine."""

_PATHS = ("--path", "--store", "--destination", "--prefix", "--file-name-prefix", "--output-prefix")
"""Options of other commands and functions for the output, which is the last argument here."""

_RESUMED: Mapping[str, str] = {"export": "export", "split": "export", "predict": "prediction"}
"""Commands with ``--resume``, and what they continue; each also has a plan."""


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
    if flag == "--plan" and command and command[0] in _RESUMED:
        return f"Unknown option {typed}: use xee-tf plan {command[0]}, with the other options."
    if replacement := find_replacement(command, flag):
        if "PREFIX" in positional:
            replacement = replacement.replace("the destination", "PREFIX")
        if flag == "--if-exists" and (interrupted := _RESUMED.get(command[-1])):
            replacement += f", or --resume to continue an interrupted {interrupted}"
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
