"""``xee-tf inspect``."""

from __future__ import annotations

import argparse

from xee_tf.cli.arguments import depths, size
from xee_tf.cli.parser import Parser
from xee_tf.display.text import image_text, record_text
from xee_tf.errors import RecordError
from xee_tf.reading.content import read_order
from xee_tf.reading.reader import open_reader
from xee_tf.reading.shards import first_record, open_shards
from xee_tf.storage import Location

__all__ = ["add_inspect"]


def add_inspect(parser: Parser) -> None:
    """The command that shows what there is."""
    parser.description = "Show patches, place, bands and shards of an export, and check that it is whole."
    parser.add_argument("path", help="a mixer, or a single TFRecord file")
    size(parser, "--kernel-size", None, "if it cannot be told from the records")
    depths(parser, "of array bands, if they cannot be told from the records")
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    if arguments.path.endswith(".json"):
        depths = dict(arguments.tensor_depths) or None
        print(
            image_text(open_reader(arguments.path, kernel_size=arguments.kernel_size, tensor_depths=depths))
        )
        return
    [shard] = open_shards([Location.of(arguments.path)])
    data = first_record(shard)
    if data is None:
        raise RecordError(f"{shard} holds no record.")
    print(record_text(str(shard), *read_order(data)))
