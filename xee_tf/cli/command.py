"""What all commands share: their results, as text or as JSON, and where they compute."""

from __future__ import annotations

import inspect
import json as json_format
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TextIO, get_type_hints

from cyclopts import Group, Parameter

from xee_tf.cli.cluster import computing_on
from xee_tf.cli.options import Flag, inherit_descriptions
from xee_tf.cli.outcome import Outcome
from xee_tf.errors import StorageError

__all__ = ["command", "planned"]

_OUTPUT = Group("Output", sort_key=5)
_CLUSTER = Group("Where to compute", sort_key=4)


def _of_cluster(
    *,
    scheduler: Annotated[str | None, Parameter(metavar="ADDRESS", group=_CLUSTER)] = None,
    workers: Annotated[int | None, Parameter(metavar="NUMBER", group=_CLUSTER)] = None,
) -> None:
    """Compute on a cluster.

    Parameters
    ----------
    scheduler
        Dask scheduler to compute with: its address, such as tcp://node7:8786, or the JSON file that it wrote.
        Its workers must be able to read and write the paths. Default: threads of this process.
    workers
        Start this number of worker processes on this computer, compute with them, and stop them.
    """


def _of_output(
    *,
    json: Annotated[Flag, Parameter(group=_OUTPUT)] = False,
    quiet: Annotated[Flag, Parameter(group=_OUTPUT)] = False,
) -> None:
    """Show results.

    Parameters
    ----------
    json
        Print the result as one JSON object, and nothing else on standard output.
    quiet
        Print no result and no progress: only warnings, errors and, with --json, the JSON object.
    """


def command(
    *functions: Callable[..., Any], cluster: bool = False
) -> Callable[[Callable[..., Outcome | Iterator[Outcome]]], Callable[..., None]]:
    """Make a command of a function that returns its outcome, or yields it and goes on.

    The command also has the options ``--json`` and ``--quiet``, which decide how the outcome is shown. A
    parameter of the function whose type is a dataclass becomes the options that are the fields of this class,
    and the function gets an instance. Two parameters are no options: `progress`, which is true without
    ``--quiet``, and `plan`, which is true in the command that `planned` makes of this one.

    Parameters
    ----------
    *functions : callable
        Public functions that describe the options; see `inherit_descriptions`.
    cluster : bool
        Whether the command has the options ``--scheduler`` and ``--workers``.
    """

    def decorate(function: Callable[..., Outcome | Iterator[Outcome]]) -> Callable[..., None]:
        def run(*arguments: Any, json: bool = False, quiet: bool = False, **options: Any) -> None:
            if progress:
                options["progress"] = not quiet
            where = {name: options.pop(name, None) for name in ("scheduler", "workers")} if cluster else {}
            for name, group in groups.items():
                given = {each.name for each in fields(group)} & options.keys()
                options[name] = group(**{each: options.pop(each) for each in given})
            stdout = sys.stdout
            with _printing(json, quiet), computing_on(**where, quiet=quiet):
                outcome = function(*arguments, **options)
                for each in [outcome] if isinstance(outcome, Outcome) else outcome:
                    if json:
                        _print(json_format.dumps(each.json()), stdout)
                    elif each.text:
                        _print(each.text, sys.stdout)
                    if each.problem is not None:
                        raise each.problem

        shared = [_of_cluster, _of_output] if cluster else [_of_output]
        groups: dict[str, Any] = {}
        parameters: dict[str, inspect.Parameter] = {}
        for part in (function, *shared):
            for name, parameter in _typed_parameters(part).items():
                if is_dataclass(parameter.annotation):
                    groups[name] = parameter.annotation
                    members = _typed_parameters(groups[name]).values()
                    parameters |= {
                        each.name: each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in members
                    }
                else:
                    parameters[name] = parameter
        progress = parameters.pop("progress", None) is not None
        parameters.pop("plan", None)
        _describe_as(run, function, list(parameters.values()))
        return inherit_descriptions(*groups.values(), *functions, *shared)(run)

    return decorate


def _print(text: str, stream: TextIO) -> None:
    """Print a result. If its reader has gone, as ``head`` does, this is no error: the work is done."""
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        # Drop what is buffered: Python would try again to print it at the end.
        with suppress(OSError, ValueError), open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise StorageError(
                f"The result cannot be printed to standard output: {error.strerror}. If the command writes "
                "files, they are complete."
            ) from error


@contextmanager
def _printing(json: bool, quiet: bool) -> Iterator[None]:
    """Drop what is printed in the body if it is quiet; do not mix it with a JSON object."""
    if quiet:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
            yield
    else:
        with redirect_stdout(sys.stderr) if json else nullcontext():
            yield


def planned(base: Callable[..., None], summary: str) -> Callable[..., None]:
    """Return the command that shows the plan of another command, with the same options.

    Parameters
    ----------
    base : callable
        The command, whose function has a parameter `plan`.
    summary : str
        The help of the new command, without the options.
    """

    def run(*arguments: Any, **options: Any) -> None:
        base(*arguments, plan=True, **options)

    _describe_as(run, base, list(inspect.signature(base).parameters.values()))
    run.__doc__ = summary
    return inherit_descriptions(base)(run)


def _typed_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function or a dataclass, whose annotations are types instead of texts."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
    }


def _describe_as(run: Any, function: Callable[..., Any], parameters: list[inspect.Parameter]) -> None:
    """Give a function the name and help of another, and a signature."""
    run.__name__, run.__qualname__ = function.__name__, function.__qualname__
    run.__module__, run.__doc__ = function.__module__, function.__doc__
    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
