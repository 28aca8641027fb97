"""Parsers whose options of several values never take a positional argument.

argparse gives ``--bands B4 B3 scene.tif out/scene`` all four words to ``--bands``. Here an option takes what
fits it, and leaves the arguments that the command needs.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Parser", "is_path"]

_FILES = re.compile(
    r"(?i).*\.(tiff?|vrt|zarr|nc4?|h5|jp2|img|json|gz|tfrecord|gpkg|(geo)?parquet|keras|tfexport)"
)


def is_path(text: str) -> bool:
    """Whether an argument looks like a file rather than a name.

    Examples
    --------
    >>> is_path("scene.tif"), is_path("out/scene"), is_path("B4"), is_path("ndvi.mean")
    (True, True, False, False)
    """
    return "/" in text or os.sep in text or _FILES.fullmatch(text) is not None


@dataclass
class _Run:
    """The words behind an option of several values."""

    place: int
    words: list[tuple[int, str]]
    fits: Callable[[str], bool] | None
    most: int
    least: int


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that puts options first and positional arguments last.

    `add_argument` takes two keywords more for options with ``nargs="+"`` or ``"*"``: ``fits``, which words
    can be values of it (default: those that are not paths; the first one of "+" always is), and ``most``,
    how many.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._flags: dict[str, argparse.Action] = {}
        self._limits: dict[str, tuple[Callable[[str], bool] | None, int]] = {}
        self._needed = 0
        super().__init__(*args, **options)

    def add_argument(
        self, *names: str, fits: Callable[[str], bool] | None = None, most: int = 1 << 30, **options: Any
    ) -> argparse.Action:
        """As that of argparse."""
        action = super().add_argument(*names, **options)
        for flag in action.option_strings:
            self._flags[flag] = action
            self._limits[flag] = fits, most
        self._needed += not action.option_strings
        return action

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As that of argparse."""
        if args is not None and self._needed:  # a parser of subcommands hands them on as they are
            args = self._ordered(list(args))
        return super().parse_known_args(args, namespace)

    def _ordered(self, args: Sequence[str]) -> list[str]:
        options: list[list[str]] = []
        positional: list[tuple[int, str]] = []
        runs: list[_Run] = []
        at = 0
        while at < len(args):
            word = args[at]
            at += 1
            if word == "--":
                positional += enumerate(args[at:], at)
                break
            if not _is_flag(word):
                positional.append((at, word))
                continue
            options.append([word])
            flag, given, _ = word.partition("=")
            meant = [flag] if flag in self._flags else [name for name in self._flags if name.startswith(flag)]
            if len(meant) != 1:
                return list(args)  # a mistake, which argparse explains
            if given:
                continue
            nargs = self._flags[meant[0]].nargs
            behind = next((i for i in range(at, len(args)) if _is_flag(args[i])), len(args))
            several = nargs in ("+", "*")
            count = nargs if isinstance(nargs, int) else behind - at if several else 1
            words = list(enumerate(args[at : at + count], at))
            at += count
            if several:
                runs.append(_Run(len(options) - 1, words, *self._limits[meant[0]], least=int(nargs == "+")))
            else:
                options[-1] += [value for _, value in words]
        # Those whose values look like nothing else first; of names, the last ones give back first.
        for run in sorted(runs, key=lambda run: (run.fits is None, -run.place)):
            lacking = max(0, self._needed - len(positional))
            kept = _kept(run, lacking)
            options[run.place] += [value for _, value in run.words[:kept]]
            positional += run.words[kept:]
        return [
            *(word for group in options for word in group),
            "--",
            *(word for _, word in sorted(positional)),
        ]


def _kept(run: _Run, lacking: int) -> int:
    """How many words an option keeps, at least as many as it needs."""
    words = [value for _, value in run.words]
    kept = min(run.least, len(words))
    while kept < len(words) and (run.fits(words[kept]) if run.fits else not is_path(words[kept])):
        kept += 1
    if lacking and kept and run.fits is None:
        if "," in words[0]:
            return 1
        here = next((i for i in range(run.least, kept) if os.path.exists(words[i])), kept)
        kept = max(run.least, min(here, len(words) - lacking))
    return min(kept, run.most) if lacking else kept


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-" and re.fullmatch(r"-\.?\d.*", word) is None
