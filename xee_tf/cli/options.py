"""The types of options that several commands have, and their descriptions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, TypeVar

import docstring_parser
from cyclopts import Parameter, Token

from xee_tf.errors import OptionError
from xee_tf.options import IfExists

__all__ = ["Crs", "Depths", "Flag", "Names", "Size", "described_by", "if_exists", "names", "pairs"]

Command = TypeVar("Command", bound=Callable[..., None])

Size = Annotated[tuple[int, int] | int | None, Parameter(metavar="WIDTH [HEIGHT]")]
"""A width and a height, or one number for both."""

Names = Annotated[list[str] | None, Parameter(metavar="NAME[,NAME...]")]
"""Names with commas between them; the option may be repeated. `names` separates them."""

Crs = Annotated[str | None, Parameter(metavar="CRS")]

Flag = Annotated[bool, Parameter(negative=())]
"""An option that is only ever switched on."""


def pairs(texts: Sequence[str], form: str) -> dict[str, int]:
    """Names and numbers, ``ndvi=12``, with commas between them.

    Examples
    --------
    >>> pairs(["ndvi=12,evi=6", "a,b=3"], "BAND=DEPTH")
    {'ndvi': 12, 'evi': 6, 'a,b': 3}
    """
    found: dict[str, int] = {}
    for text in texts:
        if re.fullmatch(r"(.+?=\d+(,|$))+", text) is None or text.endswith(","):
            raise ValueError(f"{text!r} is not of the form {form}.")
        found |= {name: int(number) for name, number in re.findall(r"(.+?)=(\d+)(?:,|$)", text)}
    return found


def _depths(_: Any, tokens: Sequence[Token]) -> dict[str, int]:
    return pairs([token.value for token in tokens], "BAND=DEPTH, such as ndvi=12")


Depths = Annotated[
    dict[str, int] | None,
    Parameter(
        converter=_depths,
        n_tokens=1,
        accepts_keys=False,
        allow_repeating=True,
        metavar="BAND=DEPTH[,BAND=DEPTH...]",
    ),
]
"""Steps of array bands; the option may be repeated."""


def names(texts: Sequence[str] | None, known: Collection[Any] = ()) -> list[str] | None:
    """Names given one by one, or with commas between them.

    Parameters
    ----------
    texts : sequence of str or None
    known : collection
        Names that may have commas in them.

    Raises
    ------
    OptionError
        If a name is empty.

    Examples
    --------
    >>> names(["B4,B3", "a,b", "B2"], known=["a,b"])
    ['B4', 'B3', 'a,b', 'B2']
    """
    if texts is None:
        return None
    found = [name for text in texts for name in ([text] if text in known else text.split(","))]
    if "" in found:
        raise OptionError(f"There is an empty name in {' '.join(texts)!r}: separate names by one comma.")
    return found


def if_exists(overwrite: bool) -> IfExists:
    """The option of the functions that ``--overwrite`` stands for."""
    return "overwrite" if overwrite else "error"


_DEFAULT = re.compile(r" ?Default(, [^:]*)?: .*?\.(?= |$)")


def described_by(*functions: Callable[..., Any]) -> Callable[[Command], Command]:
    """Complete the docstring of a command, from which its help is made, by those of public functions.

    An option that the command does not describe itself has the description of the first function that does.
    Names in backticks that are options of the command become flags. Defaults are those of the command's
    signature.
    """

    def describe(command: Command) -> Command:
        options = inspect.signature(command).parameters
        texts: dict[str, str] = {}
        for function in (command, *functions):
            for each in docstring_parser.parse(function.__doc__ or "").params:
                for name in each.arg_name.split(", "):
                    if name in options and name not in texts and each.description:
                        texts[name] = _plain(each.description, options)
                        if options[name].default not in (None, inspect.Parameter.empty):
                            texts[name] = _DEFAULT.sub("", texts[name])
        summary, *_ = inspect.cleandoc(command.__doc__ or "").split("\n\nParameters\n", 1)
        lines = [f"{name}\n    {texts[name]}" for name in options if name in texts]
        command.__doc__ = "\n".join([_plain(summary, options), "", "Parameters", "----------", *lines])
        return command

    return describe


def _plain(text: str, options: Any) -> str:
    """A description without the marks of docstrings, and with flags for options."""

    def flag(found: re.Match[str]) -> str:
        name = found[1]
        return f"--{name.replace('_', '-')}" if name in options else name

    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", flag, "\n\n".join(paragraphs)).replace("``", "")
