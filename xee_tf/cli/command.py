"""What all commands share: their results, as text or as JSON, and where they compute."""

from __future__ import annotations

import inspect
import json as json_format
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Annotated, Any, get_type_hints

from cyclopts import Group, Parameter

from xee_tf.cli.cluster import computing_on
from xee_tf.cli.options import Flag, inherit_descriptions
from xee_tf.cli.outcome import Outcome

__all__ = ["command", "variant"]

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

    The command also has the options ``--json`` and ``--quiet``, which decide how the outcome is shown and
    whether the function gets ``progress=True``, if it has this parameter, which is no option.

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
            stdout = sys.stdout
            with _printing(json, quiet), computing_on(**where, quiet=quiet):
                outcome = function(*arguments, **options)
                for each in [outcome] if isinstance(outcome, Outcome) else outcome:
                    if json:
                        print(json_format.dumps(each.json()), file=stdout, flush=True)
                    elif each.text:
                        print(each.text, flush=True)
                    if each.problem is not None:
                        raise each.problem

        shared = [_of_cluster, _of_output] if cluster else [_of_output]
        parameters: dict[str, inspect.Parameter] = {}
        for part in (function, *shared):
            hints = get_type_hints(part, include_extras=True)
            for name, parameter in inspect.signature(part).parameters.items():
                parameters[name] = parameter.replace(annotation=hints[name])
        progress = parameters.pop("progress", None) is not None
        _describe_as(run, function, list(parameters.values()))
        return inherit_descriptions(*functions, *shared)(run)

    return decorate


@contextmanager
def _printing(json: bool, quiet: bool) -> Iterator[None]:
    """Drop what is printed in the body if it is quiet; do not mix it with a JSON object."""
    if quiet:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
            yield
    else:
        with redirect_stdout(sys.stderr) if json else nullcontext():
            yield


def variant(base: Callable[..., None], summary: str, **fixed: Any) -> Callable[..., None]:
    """Return a command in which options have fixed values, and are no options.

    Parameters
    ----------
    base : callable
        The command.
    summary : str
        Its help, without the options.
    **fixed : object
        The values.
    """

    def run(*arguments: Any, **options: Any) -> None:
        base(*arguments, **fixed, **options)

    parameters = inspect.signature(base).parameters
    _describe_as(run, base, [each for name, each in parameters.items() if name not in fixed])
    run.__doc__ = summary
    return inherit_descriptions(base)(run)


def _describe_as(run: Any, function: Callable[..., Any], parameters: list[inspect.Parameter]) -> None:
    """Give a function the name and help of another, and a signature."""
    run.__name__, run.__qualname__ = function.__name__, function.__qualname__
    run.__module__, run.__doc__ = function.__module__, function.__doc__
    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
