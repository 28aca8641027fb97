"""``xee-tf inspect``."""

from __future__ import annotations

import argparse

from xee_tf.cli.arguments import depths, size
from xee_tf.cli.parser import Parser
from xee_tf.display.text import image_text, record_text
from xee_tf.errors import RecordError
from xee_tf.reading.content import read_order
from xee_tf.reading.opening import open_export
from xee_tf.reading.verify import verify
from xee_tf.shards.opening import first_record, open_shards
from xee_tf.sidecars.find import find_sources
from xee_tf.sidecars.names import is_image

__all__ = ["add_inspect"]


def add_inspect(parser: Parser) -> None:
    """The command that shows what there is."""
    parser.description = "Show patches, place, bands and shards of an export, and check that it is whole."
    parser.add_argument("path", help="a mixer, a manifest, a prefix or folder, or a single TFRecord file")
    size(parser, "--kernel-size", None, "if there is no manifest and records do not tell")
    depths(parser, "of array bands, if there is no manifest and records do not tell")
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
    location, *_ = find_sources(arguments.path)
    if is_image(location):
        depths = dict(arguments.tensor_depths) or None
        print(image_text(open_export(location, kernel_size=arguments.kernel_size, tensor_depths=depths)))
        return
    [shard] = open_shards([location])
    data = first_record(shard)
    if data is None:
        raise RecordError(f"{shard} holds no record.")
    print(record_text(str(shard), *read_order(data)))
