"""Translate the names of options from Earth Engine's spelling, and explain options that are not supported."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

from xee_tf.errors import OptionError, shorten, warn
from xee_tf.options.classes import Options, keyword_parameters
from xee_tf.options.docstrings import document_options

__all__ = ["READ_SPELLING", "Spelling", "did_you_mean", "nested_names", "show_signature", "spelled"]

P = ParamSpec("P")
R = TypeVar("R")

_REMOVAL = "0.3"
"""Version that removes the names in `Spelling.renamed`."""

_DESTINATION_REPLACED = {
    "overwrite": "use if_exists='overwrite' to replace existing files",
    "path": "the option is named destination",
    "store": "the option is named destination",
}
"""Names of other libraries and Earth Engine that no function with a `destination` has."""


@dataclass(frozen=True)
class Spelling:
    """The names of the options of one kind of call.

    Every option is also accepted in camel case, as in Earth Engine: ``patchDimensions`` for
    ``patch_dimensions``.

    Parameters
    ----------
    what : str
        Description of the options in error messages: ``"export options"``.
    aliases : mapping of str to str
        Earth Engine names to names of this package, where they differ by more than their case.
    replaced : mapping of str to str
        Earth Engine names that are not supported, to what to use instead. Functions with a `destination` also
        explain ``path``, ``store`` and ``overwrite``.
    notes : mapping of str to str
        Options that have another meaning in Earth Engine, to an explanation, which errors show together with
        those of `replaced`.
    formats : mapping of str to str
        Values of ``fileFormat`` in lower case, to "" if the format is supported, else to what to do instead.
    nested : mapping of str to str
        Names that are allowed in ``format_options``, to names of this package.
    renamed : mapping of str to str
        Names from the previous version, to current names; they issue a DeprecationWarning.
    """

    what: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    nested: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def read(
        self, given: Mapping[str, Any], known: Collection[str], taken: Collection[str] = ()
    ) -> dict[str, Any]:
        """Return the options that a user gave, under the names of this package.

        For an Earth Engine name, None means the default.

        Parameters
        ----------
        given : mapping of str to object
            The options in any spelling.
        known : collection of str
            The names of this package.
        taken : collection of str
            Options that were already given by position.

        Returns
        -------
        dict
            The values by the names in `known`.

        Raises
        ------
        OptionError
            If names are unknown or not supported (one message lists all of them), or an option is given in
            two spellings.

        Examples
        --------
        >>> exports = Spelling("export options", replaced={"maxPixels": "there is no limit"})
        >>> exports.read({"kernelSize": 32}, ["patch_dimensions", "kernel_size"])
        {'kernel_size': 32}
        >>> exports.read({"max_pixels": 1e9}, ["patch_dimensions", "kernel_size"])
        Traceback (most recent call last):
        xee_tf.errors.OptionError: These options are not supported, or differ from Earth Engine:
        - max_pixels: there is no limit.
        """
        found: dict[str, Any] = {}
        spelling = dict.fromkeys(taken, "")
        unknown: dict[str, Any] = {}
        unknown_nested: dict[str, Any] = {}
        replaced: dict[str, str] = {}
        for key, value, nested in self._flatten(given, known):
            name = self.nested.get(_without_prefix(key)) if nested else self._name(key, known)
            if name is None:
                if (instead := self._instead(key, known)) is None:
                    (unknown_nested if nested or self._has_prefix(key) else unknown)[key] = value
                elif value is not None:
                    replaced[key] = instead
            elif value is not None or key == name:
                if name in spelling:
                    _raise_duplicate(name, spelling[name], key, nested=nested)
                spelling[name], found[name] = key, value
                if key in self.renamed:
                    warn(
                        f"{key!r} is deprecated and will be removed in {_REMOVAL}; use {name!r}.",
                        DeprecationWarning,
                    )
        lines: list[str] = []
        if unknown:
            lines.append(_unknown(self.what, unknown, known, ["fileFormat"] if self.formats else ()))
        if unknown_nested:
            lines.append(_unknown("file format options", unknown_nested, self.nested))
        if replaced:
            replaced |= {name: note for name, note in self.notes.items() if name in found}
            lines.append("These options are not supported, or differ from Earth Engine:")
            lines += [f"- {name}: {instead}." for name, instead in replaced.items()]
        if lines:
            raise OptionError("\n".join(lines))
        return found

    def _flatten(self, given: Mapping[str, Any], known: Collection[str]) -> Iterator[tuple[str, Any, bool]]:
        """Yield each option except ``fileFormat``, then those inside ``format_options``; true if inside."""
        inside: Mapping[str, Any] = {}
        for key, value in given.items():
            if self.formats and _snake(key) == "file_format":
                self._check_format(value)
            elif self.nested and self._name(key, known) == "format_options":
                if not (value is None or isinstance(value, Mapping)):
                    raise OptionError(
                        "format_options must be a mapping, such as {'patchDimensions': [256, 256]}; got "
                        f"{value!r}."
                    )
                if value and inside:
                    _raise_duplicate("format_options", "format_options", "formatOptions")
                inside = value or inside
            else:
                yield key, value, False
        for key, value in inside.items():
            yield str(key), value, True

    def _has_prefix(self, key: str) -> bool:
        """Return whether a name has the prefix of ``tfrecordKernelSize``."""
        return bool(self.nested) and _without_prefix(key) != key

    def _check_format(self, value: Any) -> None:
        default = "Omit it: exports are TFRecord files"
        instead = "" if value is None else self.formats.get(str(value).lower(), default)
        if instead:
            raise OptionError(f"fileFormat={value!r} is not supported. {instead}.")

    def _name(self, key: str, known: Collection[str]) -> str | None:
        """Return the name of an option in this package; None if there is no such option."""
        if key in known:
            return key
        if key in self.renamed:
            return self.renamed[key]
        if self.aliases.get(key) in known:
            return self.aliases[key]
        if self._has_prefix(key):
            return self.nested.get(_without_prefix(key))
        snake, alias = _snake(key), self.aliases.get(_camel(key))
        return snake if snake in known else alias if alias in known else None

    def _instead(self, key: str, known: Collection[str]) -> str | None:
        """Return what to use instead of a name that is not supported; None for an unknown name."""
        replaced = self.replaced
        if "destination" in known:
            replaced = {**_DESTINATION_REPLACED, **replaced}
        spellings = (key, _camel(key), _snake(key))
        return next((replaced[name] for name in spellings if name in replaced), None)


READ_SPELLING = Spelling(
    "reading options",
    aliases={"noData": "nodata", "missingData": "nodata", "selectors": "bands"},
    replaced={
        "patchDimensions": "it is read from the mixer; omit it",
        "compressed": "it is detected from the files; omit it",
        "formatOptions": "pass the options directly, as in kernel_size=32",
        "assetId": "use a destination such as 'out/scene.tif'",
    },
)
"""The spelling of the options of functions that read or convert exports."""


def spelled(spelling: Spelling, *options: type[Options]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that it accepts its keywords in every spelling.

    The function accepts the fields of the classes `options` through ``**``; its signature shows all of them
    with their defaults.

    Examples
    --------
    >>> @spelled(Spelling("export options"))
    ... def export(path, *, kernel_size=1):
    ...     return path, kernel_size
    >>> export("out/scene", kernelSize=3)
    ('out/scene', 3)
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        keywords = {name: each for kind in options for name, each in keyword_parameters(kind).items()}
        keywords |= keyword_parameters(function)
        by_position = {
            name: each
            for name, each in signature.parameters.items()
            if each.kind is each.POSITIONAL_OR_KEYWORD
        }
        # Errors list the options first.
        known = [name for name in {**keywords, **by_position} if name not in ("self", "cls")]
        positions = list(by_position)

        @functools.wraps(function)
        def call(*args: P.args, **given: P.kwargs) -> R:
            translated = spelling.read(given, known, positions[: len(args)]) if given else {}
            return function(*args, **cast(Any, translated))

        parameters = [*by_position.values(), *keywords.values()]
        show_signature(call, signature.replace(parameters=parameters))
        return document_options(*options)(call)

    return decorate


def nested_names(options: type[Options]) -> dict[str, str]:
    """Return Earth Engine's names of the options in ``formatOptions``, to the names of this package."""
    return {_camel(each.name): each.name for each in fields(options) if each.metadata.get("nested")}


def show_signature(function: Callable[..., Any], signature: inspect.Signature) -> None:
    """Set the signature that notebooks show and complete."""
    cast(Any, function).__signature__ = signature


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint for an error message, with a leading space; empty if no known name is similar.

    Examples
    --------
    >>> did_you_mean("patch_dimension", ["patch_dimensions", "kernel_size"])
    " Did you mean 'patch_dimensions'?"
    """
    spellings = {spelling: option for option in known for spelling in (option.lower(), _snake(option))}
    close = get_close_matches(_snake(name), spellings, n=1) or get_close_matches(name.lower(), spellings, n=1)
    return f" Did you mean {spellings[close[0]]!r}?" if close else ""


def _raise_duplicate(name: str, first: str, second: str, *, nested: bool = False) -> NoReturn:
    """Raise the error for an option that is given as `second` and as `first` ("" if by position).

    `nested` is whether `second` is inside ``format_options``.
    """
    if nested and first == second:
        raise OptionError(f"{first!r} is given twice: by keyword and in format_options. Omit one.")
    if not first:
        raise OptionError(f"{name!r} is given twice: by position and as {second!r}. Omit one.")
    raise OptionError(f"Both {first!r} and {second!r} are specified: the option is given twice. Omit one.")


def _unknown(
    what: str, options: Mapping[str, Any], known: Collection[str], further: Collection[str] = ()
) -> str:
    shown = ", ".join(f"{key!r}: {_shown(value)}" for key, value in options.items())
    hints = "".join(did_you_mean(key, [*known, *further]) for key in options)
    return f"Unknown {what}: {{{shown}}}. Available options: {', '.join(known)}.{hints}"


def _shown(value: Any) -> str:
    # A mapping may hold credentials.
    return "{...}" if isinstance(value, Mapping) else shorten(repr(value))


def _snake(name: str) -> str:
    return re.sub("(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


def _without_prefix(name: str) -> str:
    """Convert ``tfrecordKernelSize`` to ``kernelSize``."""
    return name[8:9].lower() + name[9:] if name.startswith("tfrecord") and len(name) > 8 else name
