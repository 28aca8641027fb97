"""The command ``xee-tf``: a thin shell over the public functions."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

import xee_tf
from xee_tf.cli.demo import add_demo
from xee_tf.cli.export import add_export
from xee_tf.cli.inspect import add_inspect
from xee_tf.cli.model import add_model
from xee_tf.cli.parser import Parser
from xee_tf.cli.predict import add_predict
from xee_tf.cli.upload import add_upload
from xee_tf.errors import XeeTFError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments. Default: those of the process.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error that was printed.

    Examples
    --------
    >>> main(["inspect", "no-such-mixer.json"])
    1
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser().parse_args(argv)
    # TensorFlow, where it is needed at all, is not to talk in between.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        arguments.run(arguments)
    except (XeeTFError, OSError, ModuleNotFoundError) as error:
        print(f"xee-tf {arguments.command}: {_with_flags(str(error), arguments, argv)}", file=sys.stderr)
        return 1
    return 0


_POSITIONAL = ("sources", "prefix", "model", "records", "mixer", "destination", "path", "folder")
_OPTION = re.compile(
    r"(?<![\w'\"/\\.-])([a-z]+(?:_[a-z]+)*)="
    r"('overwrite'|True|False|\[\.\.\.\]|\{[^}]*\}|\(\d+(?:, \d+)*\)|\d+)?(?=[ .,:;)]|$)"
)


def _with_flags(message: str, arguments: argparse.Namespace, argv: Sequence[str]) -> str:
    """The options of this command that a message names, as they are spelled here.

    What was typed, and what is quoted, stays as it is: paths may look like options.
    """
    options = set(vars(arguments)).difference(_POSITIONAL)

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        if (name, value) == ("if_exists", "'overwrite'") and "overwrite" in options:
            return "--overwrite"
        if name not in options or value == "'overwrite'":
            return found[0]
        numbers = " ".join(re.findall(r"\d+", value or "")) if value and value[0] in "(0123456789" else ""
        return f"--{'no-' if value == 'False' else ''}{name.replace('_', '-')} {numbers}".rstrip()

    typed = {part for word in argv for part in (word, os.path.expanduser(word), *word.split("/"))}
    kept = sorted((re.escape(part) for part in typed if "=" in part), key=len, reverse=True)
    parts = re.split(f"({'|'.join(kept)})", message) if kept else [message]
    return "".join(part if number % 2 else _OPTION.sub(flag, part) for number, part in enumerate(parts))


def _parser() -> Parser:
    parser = Parser(
        prog="xee-tf",
        description="Earth Engine's TensorFlow bridge for any raster: TFRecord out, predictions back.",
    )
    parser.add_argument("--version", action="version", version=f"xee-tf {xee_tf.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_export(commands.add_parser("export", help="rasters to TFRecord patches and their mixer"))
    add_upload(commands.add_parser("upload", help="predictions to a GeoTIFF or Zarr, rows to a GeoPackage"))
    add_inspect(commands.add_parser("inspect", help="what a mixer and its TFRecords hold"))
    add_predict(commands.add_parser("predict", help="every pixel of rasters with a model on disk"))
    add_model(
        commands.add_parser("model", help="prepare SavedModels for Earth Engine's payloads, and serve them")
    )
    add_demo(commands.add_parser("demo", help="the whole round on a real scene: export, train, predict"))
    return parser
