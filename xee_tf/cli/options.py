"""Types and descriptions of the options that commands share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import docstring_parser
import xarray as xr
from cyclopts import Parameter, Token

from xee_tf.errors import OptionError, shorten
from xee_tf.options import IfExists, did_you_mean
from xee_tf.remote import parse_int64

__all__ = [
    "Box",
    "Crs",
    "Depths",
    "FilePath",
    "Flag",
    "Name",
    "Names",
    "Number",
    "Shares",
    "Size",
    "Value",
    "if_exists",
    "inherit_descriptions",
    "parse_names",
    "parse_pairs",
    "parse_shares",
    "select_bands",
]

if TYPE_CHECKING:
    FilePath = str
else:
    FilePath = str | Path  # always a str: shells complete the names of files for a Path
"""A path or URL as it is written."""

Command = TypeVar("Command", bound=Callable[..., None])

Size = Annotated[tuple[int, int] | int | None, Parameter(metavar="WIDTH [HEIGHT]")]
"""Width and height, or one number for both."""

Names = Annotated[list[str] | None, Parameter(metavar="NAME[,NAME...]")]
"""Names separated by commas; the option may be repeated. `parse_names` splits them."""

Name = Parameter(metavar="NAME")

Number = Parameter(metavar="NUMBER")


def _value(_: Any, tokens: Sequence[Token]) -> int | float:
    """Parse a number; a float could not represent all 64-bit integers, and an int no fraction."""
    text = tokens[0].value
    try:
        return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else float(text)
    except ValueError:
        raise ValueError(f"expected a number; got {shorten(repr(text))}.") from None


Value = Parameter(converter=_value, n_tokens=1, accepts_keys=False, metavar="VALUE")
"""An integer or a fraction, as it is written."""

Crs = Annotated[str | None, Parameter(metavar="CRS")]

Box = Annotated[tuple[float, float, float, float] | None, Parameter(metavar="LEFT BOTTOM RIGHT TOP")]

Flag = Annotated[bool, Parameter(negative=())]
"""A flag without a negative form."""


def parse_pairs(texts: Sequence[str], form: str) -> dict[str, int]:
    """Parse pairs of names and numbers, such as ``ndvi=12``, that are separated by commas.

    Examples
    --------
    >>> parse_pairs(["ndvi=12,evi=6", "a,b=3"], "BAND=DEPTH")
    {'ndvi': 12, 'evi': 6, 'a,b': 3}
    """
    pairs: dict[str, int] = {}
    for text in texts:
        is_whole = re.fullmatch(r"(.+?=[0-9]+(,|$))+", text) is not None and not text.endswith(",")
        found = {name: parse_int64(number) for name, number in re.findall(r"(.+?)=([0-9]+)(?:,|$)", text)}
        numbers = {name: number for name, number in found.items() if number is not None}
        if not is_whole or len(numbers) < len(found):
            raise ValueError(f"expected {form}; got {shorten(repr(text))}.")
        pairs |= numbers
    return pairs


def _depths(_: Any, tokens: Sequence[Token]) -> dict[str, int]:
    return parse_pairs([token.value for token in tokens], "BAND=DEPTH, such as ndvi=12")


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
"""Depths of array bands, separated by commas; the option may be repeated."""


def parse_shares(texts: Sequence[str]) -> dict[str, float]:
    """Parse the names of sides and their proportions.

    Examples
    --------
    >>> parse_shares(["train=0.7,val=0.15", "test=.15"])
    {'train': 0.7, 'val': 0.15, 'test': 0.15}
    """
    shares: dict[str, float] = {}
    for text in texts:
        for pair in text.split(","):
            name, _, share = pair.partition("=")
            if not name or re.fullmatch(r"[0-9]*\.?[0-9]+", share) is None:
                raise ValueError(f"expected {_SHARES}; got {shorten(repr(text))}.")
            shares[name] = float(share)
    return shares


_SHARES = "NAME=SHARE, such as train=0.8,test=0.2"


def _shares(_: Any, tokens: Sequence[Token]) -> dict[str, float]:
    return parse_shares([token.value for token in tokens])


Shares = Annotated[
    dict[str, float] | None,
    Parameter(
        converter=_shares,
        n_tokens=1,
        accepts_keys=False,
        allow_repeating=True,
        metavar="NAME=SHARE[,NAME=SHARE...]",
    ),
]
"""Names of sides and their proportions of the patches."""


def parse_names(texts: Sequence[str] | None, known: Collection[Any] = ()) -> list[str] | None:
    """Split names at commas.

    Parameters
    ----------
    texts : sequence of str or None
        Values of an option, each with one or more names.
    known : collection, optional
        Names that are not split, because they contain commas themselves.

    Raises
    ------
    OptionError
        If a name is empty.

    Examples
    --------
    >>> parse_names(["B4,B3", "a,b", "B2"], known=["a,b"])
    ['B4', 'B3', 'a,b', 'B2']
    """
    if texts is None:
        return None
    names = [name for text in texts for name in ([text] if text in known else text.split(","))]
    if "" in names:
        raise OptionError(f"Empty name in {' '.join(texts)!r}: separate names by a single comma.")
    return names


def select_bands(image: xr.Dataset, bands: Sequence[str] | None) -> xr.Dataset:
    """Select bands of an image by their names, which may be separated by commas; all if there are none."""
    chosen = parse_names(bands, image.data_vars)
    if not chosen:
        return image
    for band in chosen:
        if band not in image:
            available = ", ".join(map(repr, image))
            hint = did_you_mean(band, [str(name) for name in image])
            raise OptionError(
                f"Band {band!r} not found; available: {available}.{hint} Name bands that have other names "
                "with band_names=."
            )
    return image[chosen]


def if_exists(overwrite: bool, resume: bool = False) -> IfExists:
    """Return the value of `if_exists` for ``--overwrite`` and ``--resume``."""
    if overwrite and resume:
        raise OptionError("overwrite and resume exclude each other: pass one of them.")
    return "overwrite" if overwrite else "resume" if resume else "error"


_NAMES = re.compile(r"\b([a-z]+(?:_[a-z]+)+)\b")

_DEFAULT = re.compile(r" ?Default(, [^:]*)?: .*?\.(?= |$)")


def inherit_descriptions(*functions: Callable[..., Any]) -> Callable[[Command], Command]:
    """Complete the docstring of a command, which is its help, with descriptions from public functions.

    An option that the command does not describe takes the description of the first function that has one.
    Options in backticks become flags. Defaults are omitted: the help shows those of the command's signature.
    """

    def decorate(command: Command) -> Command:
        options = inspect.signature(command).parameters
        texts: dict[str, str] = {}
        for function in (command, *functions):
            for each in docstring_parser.parse(function.__doc__ or "").params:
                for name in each.arg_name.split(", "):
                    if name in options and name not in texts and each.description:
                        texts[name] = _plain_text(each.description, options)
                        if options[name].default not in (None, inspect.Parameter.empty):
                            texts[name] = _DEFAULT.sub("", texts[name])
        summary, *_ = inspect.cleandoc(command.__doc__ or "").split("\n\nParameters\n", 1)
        lines = [f"{name}\n    {texts[name]}" for name in options if name in texts]
        command.__doc__ = "\n".join([_plain_text(summary, options), "", "Parameters", "----------", *lines])
        return command

    return decorate


def _plain_text(text: str, options: Collection[str]) -> str:
    """Remove the markup of a docstring, and replace options by flags."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        return f"--{name.replace('_', '-')}" if name in options else name

    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    plain = re.sub(r"(?<!`)`([^`]+)`(?!`)", replace, "\n\n".join(paragraphs))
    plain = re.sub(r"``([^`]*)``", lambda code: _NAMES.sub(replace, code[1]), plain)
    return re.sub(r"\bBy default (.*?[.;])(?=\s|$)", r"Default: \1", plain)
