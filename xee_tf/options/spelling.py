"""The names of options: ours, Earth Engine's, and what takes the place of those that mean nothing here."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, ParamSpec, TypeVar, cast

from xee_tf.errors import OptionError, shorten, warn
from xee_tf.options.classes import Options, by_name

__all__ = ["READ_SPELLING", "Spelling", "did_you_mean", "nested_names", "show_signature", "spelled"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Spelling:
    """The names of the options of one kind of call.

    Every option of ours is also known in Earth Engine's way to write names: ``patchDimensions`` for
    ``patch_dimensions``.

    Parameters
    ----------
    what : str
        What the options are called in errors: ``"export options"``.
    aliases : mapping from str to str
        Names of Earth Engine that ours differ from in more than the way they are written.
    replaced : mapping from str to str
        Names of Earth Engine that are no options here, and what takes their place.
    notes : mapping from str to str
        Options of ours that mean something else in Earth Engine, named beside those of `replaced`.
    formats : mapping from str to str
        Values of ``fileFormat``, in lower case: empty if it is what is written, else what to do instead.
    nested : mapping from str to str
        Names that the option ``format_options`` may hold, and ours.
    renamed : mapping from str to str
        Names that the previous version had, and ours. They give a DeprecationWarning.
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
        """Options as a user wrote them, in our names (`known`), beside those `taken` by position.

        None stands for a default where a name is Earth Engine's.

        Raises
        ------
        OptionError
            One message for all names that are unknown, or that something takes the place of; or if an option
            is given in two spellings.

        Examples
        --------
        >>> exports = Spelling("export options", replaced={"maxPixels": "there is no limit"})
        >>> exports.read({"kernelSize": 32}, ["patch_dimensions", "kernel_size"])
        {'kernel_size': 32}
        >>> exports.read({"max_pixels": 1e9}, ["patch_dimensions", "kernel_size"])
        Traceback (most recent call last):
        xee_tf.errors.OptionError: These options do not exist here, or mean something else:
        - max_pixels: there is no limit.
        """
        found: dict[str, Any] = {}
        spelling = dict.fromkeys(taken, "")
        unknown: dict[str, Any] = {}
        unknown_nested: dict[str, Any] = {}
        replaced: dict[str, str] = {}
        for key, value, nested in self._flat(given, known):
            name = self.nested.get(_without_prefix(key)) if nested else self._name(key, known)
            if name is None:
                if (instead := self._instead(key)) is None:
                    (unknown_nested if nested or self._is_flat(key) else unknown)[key] = value
                elif value is not None:
                    replaced[key] = instead
            elif value is not None or key == name:
                if name in spelling:
                    self._refuse_twice(name, spelling[name], key)
                spelling[name], found[name] = key, value
                if key in self.renamed:
                    warn(
                        f"{key!r} is deprecated and will be removed: use {name!r} instead.",
                        DeprecationWarning,
                    )
        lines: list[str] = []
        if unknown:
            lines.append(_unknown(self.what, unknown, known, ["fileFormat"] if self.formats else ()))
        if unknown_nested:
            lines.append(_unknown("file format options", unknown_nested, self.nested))
        if replaced:
            replaced |= {name: note for name, note in self.notes.items() if name in found}
            lines.append("These options do not exist here, or mean something else:")
            lines += [f"- {name}: {instead}." for name, instead in replaced.items()]
        if lines:
            raise OptionError("\n".join(lines))
        return found

    def _flat(self, given: Mapping[str, Any], known: Collection[str]) -> Iterator[tuple[str, Any, bool]]:
        """The options without ``fileFormat``, and then those in ``format_options``."""
        inside: Mapping[str, Any] = {}
        for key, value in given.items():
            if self.formats and _snake(key) == "file_format":
                self._check_format(value)
            elif self.nested and self._name(key, known) == "format_options":
                if not (value is None or isinstance(value, Mapping)):
                    raise OptionError(
                        "format_options must be a mapping such as {'patchDimensions': [256, 256]}; got "
                        f"{value!r}."
                    )
                if value and inside:
                    self._refuse_twice("format_options", "format_options", "formatOptions")
                inside = value or inside
            else:
                yield key, value, False
        for key, value in inside.items():
            yield str(key), value, True

    def _is_flat(self, key: str) -> bool:
        """Whether it is ``tfrecordKernelSize``, or was meant to be like that."""
        return bool(self.nested) and _without_prefix(key) != key

    def _check_format(self, value: Any) -> None:
        default = "Leave it out: TFRecord is what is written"
        instead = "" if value is None else self.formats.get(str(value).lower(), default)
        if instead:
            raise OptionError(f"fileFormat={value!r} cannot be written here. {instead}.")

    def _name(self, key: str, known: Collection[str]) -> str | None:
        """Our name of an option, if it is one."""
        if key in known:
            return key
        if key in self.renamed:
            return self.renamed[key]
        if key in self.aliases:
            return self.aliases[key]
        if self._is_flat(key):
            return self.nested.get(_without_prefix(key))
        snake = _snake(key)
        return snake if snake in known else self.aliases.get(_camel(key))

    def _instead(self, key: str) -> str | None:
        spellings = (key, _camel(key), _snake(key))
        return next((self.replaced[name] for name in spellings if name in self.replaced), None)

    def _refuse_twice(self, name: str, first: str, second: str) -> None:
        if not first:
            raise OptionError(f"{name!r} is given twice: by its position, and as {second!r}. Leave one out.")
        raise OptionError(
            f"Both {first!r} and {second!r} are specified: one option is given twice. Leave one out."
        )


READ_SPELLING = Spelling(
    "reading options",
    aliases={"noData": "nodata", "missingData": "nodata"},
    replaced={
        "patchDimensions": "the mixer says it; leave it out",
        "compressed": "the files tell it; leave it out",
        "formatOptions": "give the options by themselves, as in kernel_size=32",
        "assetId": "the destination is a file, such as 'out/scene.tif'",
    },
)
"""How the options of functions that read or convert exports are written."""


def spelled(spelling: Spelling, *options: type[Options]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take its keywords in every spelling.

    The fields of the classes `options` are keywords that it takes by ``**``: the signature shows all of them
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
        keywords = {name: each for kind in options for name, each in by_name(kind).items()}
        keywords |= by_name(function)
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
            ours = spelling.read(given, known, positions[: len(args)]) if given else {}
            return function(*args, **cast(Any, ours))

        parameters = [*by_position.values(), *keywords.values()]
        show_signature(call, signature.replace(parameters=parameters))
        return call

    return decorate


def nested_names(options: type[Options]) -> dict[str, str]:
    """Earth Engine's names of the options in ``formatOptions``, and ours."""
    return {_camel(each.name): each.name for each in fields(options) if each.metadata.get("nested")}


def show_signature(function: Callable[..., Any], signature: inspect.Signature) -> None:
    """Give a function the signature that notebooks show and complete."""
    cast(Any, function).__signature__ = signature


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an error, with a blank in front; empty if nothing is near.

    Examples
    --------
    >>> did_you_mean("patch_dimension", ["patch_dimensions", "kernel_size"])
    " Did you mean 'patch_dimensions'?"
    """
    spellings = {spelling: option for option in known for spelling in (option.lower(), _snake(option))}
    near = get_close_matches(_snake(name), spellings, n=1) or get_close_matches(name.lower(), spellings, n=1)
    return f" Did you mean {spellings[near[0]]!r}?" if near else ""


def _unknown(
    what: str, options: Mapping[str, Any], known: Collection[str], further: Collection[str] = ()
) -> str:
    shown = ", ".join(f"{key!r}: {_shown(value)}" for key, value in options.items())
    hints = "".join(did_you_mean(key, [*known, *further]) for key in options)
    return f"Unknown {what}: {{{shown}}}. Known options: {', '.join(known)}.{hints}"


def _shown(value: Any) -> str:
    # A mapping may hold credentials.
    return "{...}" if isinstance(value, Mapping) else shorten(repr(value))


def _snake(name: str) -> str:
    return re.sub("(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


def _without_prefix(name: str) -> str:
    """``tfrecordKernelSize`` as ``kernelSize``."""
    return name[8:9].lower() + name[9:] if name.startswith("tfrecord") and len(name) > 8 else name
