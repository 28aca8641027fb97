"""The command ``xee-tf``. Each command is imported from ``xee_tf.cli`` when it is used.

This module is not part of the package because ``import xee_tf`` takes about a second, and ``xee-tf --help``
does not need it.
"""

from __future__ import annotations

import codecs
import gc
import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress

from cyclopts import App, Argument, CycloptsError, Group, Parameter, UnknownCommandError

__all__ = ["app", "main"]


def _version() -> str:
    import xee_tf

    return f"xee-tf {xee_tf.__version__}"


def _format_default(default: object) -> str | None:
    """Format the default of an option as it is typed in a shell."""
    if default is None or default is False:
        return None
    if default is True:
        return "yes"
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


app = App(
    name="xee-tf",
    help="Earth Engine's TensorFlow workflow for any raster: export TFRecords, train, predict.",
    version=_version,
    help_format="plaintext",
    group_arguments=Group("Arguments", sort_key=1),
    group_parameters=Group("Options", sort_key=2),
    default_parameter=Parameter(
        json_dict=False,  # arguments that look like JSON are text
        json_list=False,
        negative_iterable=(),
        show_default=_format_default,
    ),
    suppress_keyboard_interrupt=False,
)
upload = App(name="upload", help="Convert TFRecords to GeoTIFF or Zarr, or to GeoParquet or GeoPackage.")
plan = App(name="plan", help="Show what an export or a prediction would do, and write nothing.")
model = App(name="model", help="Inspect models, prepare them for Earth Engine's payloads, or serve them.")

app.command("xee_tf.cli.export:export", name="export", help="Export rasters as TFRecord patches and a mixer.")
app.command(
    "xee_tf.cli.export:split",
    name="split",
    help="Export rasters in parts without a common pixel: training, validation, testing.",
)
app.command(
    "xee_tf.cli.sample:sample",
    name="sample",
    help="Write a table of pixels: at points, in polygons, at random.",
)
app.command("xee_tf.cli.inspect:inspect", name="inspect", help="Show the contents of an export.")
app.command(
    "xee_tf.cli.inspect:verify", name="verify", help="Compare all files of an export with its manifest."
)
app.command(upload)
upload.command(
    "xee_tf.cli.upload:upload_image",
    name="image",
    help="Convert predictions in TFRecords to a GeoTIFF or a Zarr store.",
)
upload.command(
    "xee_tf.cli.upload:upload_table",
    name="table",
    help="Convert rows in TFRecords to a GeoParquet or GeoPackage file.",
)
app.command("xee_tf.cli.predict:predict", name="predict", help="Predict every pixel of rasters with a model.")
app.command(
    "xee_tf.cli.explore:explore",
    name="explore",
    help="Show rasters and a prediction on a map in a browser.",
)
app.command(plan)
plan.command("xee_tf.cli.export:plan_export", name="export", help='Show what "xee-tf export" would do.')
plan.command("xee_tf.cli.export:plan_split", name="split", help='Show what "xee-tf split" would do.')
plan.command("xee_tf.cli.predict:plan_predict", name="predict", help='Show what "xee-tf predict" would do.')
app.command(model)
model.command("xee_tf.cli.model:inspect", name="inspect", help="Show the inputs and outputs of a model.")
model.command(
    "xee_tf.cli.model:prepare",
    name="prepare",
    help="Wrap a SavedModel so that it takes and returns base64-encoded tensors.",
)
model.command("xee_tf.cli.model:serve", name="serve", help="Serve SavedModels over HTTP and gRPC.")
app.command(
    "xee_tf.cli.completion:completion", name="completion", help="Print a script for completion in a shell."
)
app.command("xee_tf.cli.demo:demo", name="demo", help="Export a real scene, train a model on it and predict.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments. Default: those of the process.

    Returns
    -------
    int
        Exit status: 0 on success, 1 after an error, 2 after a usage error, 130 after Ctrl-C, 143
        after SIGTERM. The message of an error is printed to standard error.

    Examples
    --------
    >>> main(["inspect", "no-such-mixer.json"])
    1
    """
    with _usable_streams():
        return _run(sys.argv[1:] if argv is None else argv)


def _run(typed: Sequence[str]) -> int:
    tokens = _normalize_flags(typed)
    names: Sequence[str] = ()
    apps: Sequence[App] = ()
    format_warning = warnings.formatwarning
    try:
        with _sigterm_exits():
            names, apps = _import_command(tokens)
        warnings.formatwarning = _warning_formatter(names, apps, tokens)
        with _sigterm_raises(), _announcing(names, apps, tokens):
            app(tokens, result_action="return_value", exit_on_error=False, print_error=False)
    except KeyboardInterrupt as error:
        message = " ".join(["Interrupted.", *getattr(error, "__notes__", ["Run it again."])])
        if apps:
            from xee_tf.cli.errors import options_to_flags

            message = options_to_flags(message, _arguments(apps), tokens)
        return _fail(names, message, 130 if type(error) is KeyboardInterrupt else 143)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # whoever reads the help wants no more of it
            return 0
        raise
    except CycloptsError as error:
        return _fail(
            names, _suggest_commas(_format_usage_error(error, apps, tokens, typed), error, apps, tokens), 2
        )
    except Exception as error:
        from xee_tf.cli.errors import describe_error, options_to_flags

        # cyclopts raises an ImportError of its own from that of a command's module.
        cause = error.__cause__ if isinstance(error, ImportError) and not apps else error
        if cause is None or (described := describe_error(cause)) is None:
            raise
        message = options_to_flags(described, _arguments(apps), tokens)
        return _fail(names, _suggest_commas(message, cause, apps, tokens), 1)
    finally:
        warnings.formatwarning = format_warning
    return 0


_SIMILAR = {"×": "x", "…": "...", "–": "-", "─": "-", "│": "|"}
"""Characters of results, and what to print if the encoding of a stream lacks them."""


@contextmanager
def _usable_streams() -> Iterator[None]:
    """Let no command fail because standard output or standard error is closed, or lacks a character.

    What is printed to a closed stream is dropped. Python would print to standard output what is meant for a
    closed standard error, and the next file that is opened would get the number of the closed stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    before = sys.stdout, sys.stderr
    codecs.register_error("xee-tf", _replace_character)
    changed = []
    opened = ExitStack()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, opened.enter_context(open(os.devnull, "w")))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors="xee-tf")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        opened.close()
        for stream, errors in changed:
            stream.reconfigure(errors=errors)


def _replace_character(error: UnicodeError) -> tuple[str | bytes, int]:
    """Print a similar character, the bytes of a name of a file that are no characters, or an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, end = error.object[error.start], error.start + 1
    if "\udc80" <= character <= "\udcff":
        return character.encode("utf-8", "surrogateescape"), end
    return _SIMILAR.get(character) or character.encode("ascii", "backslashreplace").decode(), end


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Let SIGTERM end the process with a message while modules are imported, when nothing has begun.

    An exception would not do: extension modules may ignore one that is raised while they are imported.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if os.name != "posix" or not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def on_signal(*_: object) -> None:
        os._exit(_fail((), "Interrupted. Run it again.", 143))

    signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _sigterm_raises() -> AbstractContextManager[object]:
    """Let SIGTERM raise a subclass of KeyboardInterrupt; commands that only print help do not need it."""
    if "xee_tf" not in sys.modules:
        return nullcontext()
    from xee_tf.signals import sigterm_raises

    return sigterm_raises()


def _announcing(
    names: Sequence[str], apps: Sequence[App], tokens: Sequence[str]
) -> AbstractContextManager[object]:
    """Say with the flags of the command what becomes of an interrupted computation."""
    if "xee_tf" not in sys.modules:
        return nullcontext()
    from xee_tf.cli.errors import options_to_flags
    from xee_tf.signals import speaking

    return speaking(lambda message: _fail(names, options_to_flags(message, _arguments(apps), tokens), 130))


def _import_command(tokens: Sequence[str]) -> tuple[Sequence[str], Sequence[App]]:
    """Find a command, import its module, and use its docstring as the help."""
    # Modules are never freed. Excluding their objects from garbage collection saves 0.3 s.
    first = "xee_tf" not in sys.modules
    gc.disable()
    try:
        names, apps, _ = app.parse_commands(tokens)
        for name, each in zip(names, apps[1:], strict=True):
            if each.default_command is not None and not name.startswith("-"):
                each.help = None  # the line shown in lists of commands
    finally:
        if first:
            gc.freeze()
        gc.enable()
    return names, apps


def _arguments(apps: Sequence[App]) -> Sequence[Argument]:
    """Return the arguments of a command; none for a list of commands."""
    return apps[-1].assemble_argument_collection() if apps and apps[-1].default_command else []


def _normalize_flags(tokens: Sequence[str]) -> list[str]:
    """Convert flags in Earth Engine's spelling, such as ``--patchDimensions``.

    Examples
    --------
    >>> _normalize_flags(["--kernelSize=3", "aB.tif", "--", "--aB"])
    ['--kernel-size=3', 'aB.tif', '--', '--aB']
    """
    normalized = list(tokens)
    for index, token in enumerate(normalized):
        if token == "--":
            break
        flag, equals, value = token.partition("=")
        if re.fullmatch("--[a-z][A-Za-z0-9]*", flag):
            normalized[index] = re.sub("(?<=[a-z0-9])([A-Z])", r"-\1", flag).lower() + equals + value
    return normalized


def _suggest_commas(message: str, error: BaseException, apps: Sequence[App], tokens: Sequence[str]) -> str:
    """Suggest ``--bands B4,B3`` if ``--bands B4 B3`` explains the error."""
    if not apps or apps[-1].default_command is None:
        return message
    from xee_tf.cli.errors import join_values

    for flag, value, corrected in join_values(error, _arguments(apps), tokens):
        try:
            app.parse_args(corrected, exit_on_error=False, print_error=False)
        except CycloptsError:
            continue
        return f"{message.rstrip('.')}; did you mean {flag} {value}?"
    return message


def _format_usage_error(
    error: CycloptsError, apps: Sequence[App], tokens: Sequence[str], typed: Sequence[str]
) -> str:
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        token = error.unused_tokens[0]
        if token.startswith("-"):
            token = typed[tokens.index(token)] if token in tokens else token
            return re.sub('Unknown command "[^"]*"', lambda _: f"Unknown option {token}", str(error))
    if not apps or apps[-1].default_command is None:
        return str(error)
    from xee_tf.cli.usage import describe_usage_error

    return describe_usage_error(error, _arguments(apps), app, tokens, typed)


def _warning_formatter(
    names: Sequence[str], apps: Sequence[App], tokens: Sequence[str]
) -> Callable[..., str]:
    """Return a function that formats a warning as one line, and each text only once."""
    shown: set[str] = set()

    def format_warning(message: Warning | str, *_: object, **__: object) -> str:
        from xee_tf.cli.errors import options_to_flags

        text = options_to_flags(str(message), _arguments(apps), tokens)
        if text in shown:
            return ""
        shown.add(text)
        return f"{' '.join(['xee-tf', *names])}: warning: {_one_line(text)}\n"

    return format_warning


def _fail(names: Sequence[str], message: str, status: int) -> int:
    with suppress(OSError, ValueError):  # nobody reads it any more
        print(f"{' '.join(['xee-tf', *names])}: {_one_line(message)}", file=sys.stderr, flush=True)
    return status


def _one_line(message: str) -> str:
    return re.sub(r"\s*\n\s*", " ", message.strip())
