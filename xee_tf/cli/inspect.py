"""``xee-tf inspect``."""

from __future__ import annotations

import argparse

from xee_tf.cli.arguments import add_depths, add_size
from xee_tf.cli.parser import Parser
from xee_tf.reading import inspect_path, verify

__all__ = ["add_inspect"]


def add_inspect(parser: Parser) -> None:
    """The command that shows what there is."""
    parser.description = "Show patches, place, bands and shards of an export, and check that it is whole."
    parser.add_argument("path", help="a mixer, a manifest, a prefix or folder, or a single TFRecord file")
    add_size(parser, "--kernel-size", None, "if there is no manifest and records do not tell")
    add_depths(parser, "of array bands, if there is no manifest and records do not tell")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read every byte and compare checksums; exit with 1 if one is wrong",
    )
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    if arguments.verify:
        report = verify(arguments.path)
        print(report)
        report.raise_for_problems()
        return
    depths = dict(arguments.tensor_depths) or None
    print(inspect_path(arguments.path, kernel_size=arguments.kernel_size, tensor_depths=depths))
