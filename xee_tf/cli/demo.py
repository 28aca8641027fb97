"""``xee-tf demo``."""

from __future__ import annotations

import argparse

from xee_tf.cli.parser import Parser

__all__ = ["add_demo"]


def add_demo(parser: Parser) -> None:
    """The command for the whole round."""
    parser.description = (
        "Export a Landsat scene and a land-cover map as TFRecord, train a small U-Net, predict, rebuild "
        "georeferenced rasters and draw them; about a minute on two cores."
    )
    parser.add_argument("--output", default="demo-output", metavar="FOLDER", help="default: demo-output")
    parser.add_argument("--data", metavar="FOLDER", help="default: $XEE_TF_DATA, else .data")
    parser.add_argument("--epochs", type=int, default=60, metavar="N", help="rounds of training; default: 60")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    from xee_tf import demo

    demo.run(arguments.output, data=arguments.data, epochs=arguments.epochs)
