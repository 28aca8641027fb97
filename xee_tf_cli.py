"""The command ``xee-tf``: the names of its commands, each of which is imported when it is used.

This module lies beside the package because ``import xee_tf`` takes a second: it registers the accessor of
xarray. ``xee-tf --help`` needs none of that.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from cyclopts import App, CoercionError, CycloptsError, Parameter, UnknownOptionError

__all__ = ["app", "main"]


def _version() -> str:
    import xee_tf

    return f"xee-tf {xee_tf.__version__}"


def _shown(default: object) -> str | None:
    """The default of an option in its help, as it would be typed."""
    if default is None or default is False:
        return None
    if default is True:
        return "yes"
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


app = App(
    name="xee-tf",
    help="Earth Engine's TensorFlow bridge for any raster: TFRecord out, predictions back.",
    version=_version,
    help_format="plaintext",
    # Words are taken as they are typed, also those that look like JSON.
    group_parameters="Options",
    default_parameter=Parameter(json_dict=False, json_list=False, negative_iterable=(), show_default=_shown),
    suppress_keyboard_interrupt=False,
)
upload = App(name="upload", help="Predictions to a GeoTIFF or Zarr, rows to a GeoParquet or GeoPackage.")
model = App(name="model", help="Prepare SavedModels for Earth Engine's payloads, and serve them.")

app.command("xee_tf.cli.export:export", name="export", help="Rasters to TFRecord patches and their mixer.")
app.command("xee_tf.cli.inspect:inspect", name="inspect", help="What a mixer and its TFRecords hold.")
app.command(upload)
upload.command(
    "xee_tf.cli.upload:upload_image",
    name="image",
    help="Prediction TFRecords and a mixer to a GeoTIFF or Zarr.",
)
upload.command(
    "xee_tf.cli.upload:upload_table",
    name="table",
    help="A TFRecord of rows to a GeoParquet or GeoPackage.",
)
app.command("xee_tf.cli.predict:predict", name="predict", help="Every pixel of rasters with a model on disk.")
app.command(model)
model.command(
    "xee_tf.cli.model:prepare",
    name="prepare",
    help="Wrap a SavedModel so that it takes and returns base64 of serialised tensors.",
)
model.command(
    "xee_tf.cli.model:serve", name="serve", help="SavedModels over HTTP and gRPC, as hosted models are."
)
app.command(
    "xee_tf.cli.demo:demo", name="demo", help="The whole round on a real scene: export, train, predict."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments. Default: those of the process.

    Returns
    -------
    int
        Exit status: 0; 1 after an error and 2 after a mistake in the arguments, which were printed; 130 after
        Ctrl-C.

    Examples
    --------
    >>> main(["inspect", "no-such-mixer.json"])
    1
    """
    words = _in_our_spelling(sys.argv[1:] if argv is None else argv)
    # TensorFlow, where it is needed at all, is not to talk in between.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    names: Sequence[str] = ()
    apps: Sequence[App] = ()
    try:
        names, apps, _ = app.parse_commands(words)
        for name, each in zip(names, apps[1:], strict=True):
            if each.default_command is not None and not name.startswith("-"):
                each.help = None  # that of a list; its own help begins with its docstring
        app(words, result_action="return_value", exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        return 130
    except CycloptsError as error:
        return _fail(names, _usage(error), 2)
    except Exception as error:
        from xee_tf.cli.errors import USER_ERRORS, with_flags

        # A command that cannot be imported says so in an error of cyclopts.
        cause = error.__cause__ if isinstance(error, ImportError) and not apps else error
        if not isinstance(cause, USER_ERRORS):
            raise
        arguments = apps[-1].assemble_argument_collection() if apps else []
        return _fail(names, with_flags(str(cause), arguments, words), 1)
    return 0


def _in_our_spelling(words: Sequence[str]) -> list[str]:
    """The arguments, with flags in Earth Engine's spelling, ``--patchDimensions``, in ours.

    Examples
    --------
    >>> _in_our_spelling(["--kernelSize=3", "aB.tif", "--", "--aB"])
    ['--kernel-size=3', 'aB.tif', '--', '--aB']
    """
    ours = list(words)
    for number, word in enumerate(ours):
        if word == "--":
            break
        flag, equals, value = word.partition("=")
        if re.fullmatch("--[a-z][A-Za-z0-9]*", flag):
            ours[number] = re.sub("(?<=[a-z0-9])([A-Z])", r"-\1", flag).lower() + equals + value
    return ours


def _usage(error: CycloptsError) -> str:
    """What is wrong with the arguments."""
    argument = error.argument
    if isinstance(error, UnknownOptionError):
        from xee_tf.cli.errors import instead

        flag = (error.token.keyword or error.token.value).split("=")[0]
        if why := instead(error.command_chain or (), flag):
            return f"there is no {flag} here: {why}"
    if isinstance(error, CoercionError) and error.msg is None and argument and argument.parameter.metavar:
        return f"{argument.name} takes {argument.parameter.metavar}: {str(error)[0].lower()}{str(error)[1:]}"
    return str(error)


def _fail(names: Sequence[str], text: str, status: int) -> int:
    line = re.sub(r"\s*\n\s*", " ", text.strip())
    print(f"{' '.join(['xee-tf', *names])}: {line}", file=sys.stderr)
    return status
