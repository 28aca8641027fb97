"""``xee-tf model``."""

from __future__ import annotations

import argparse

import xee_tf
from xee_tf.cli.arguments import is_assignment, label, options_of
from xee_tf.cli.parser import Parser
from xee_tf.serving import stop_signal

__all__ = ["add_model"]


def add_model(parser: Parser) -> None:
    """The commands for models."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    prepare = actions.add_parser(
        "prepare", help="wrap a SavedModel so that it takes and returns base64 of serialised tensors"
    )
    prepare.description = (
        "Wrap a SavedModel so that Earth Engine's default payload fits it: URL-safe base64 of serialised "
        "TensorProtos in and out. Flags are those of `earthengine model prepare`."
    )
    names = (
        "names with commas between them, or a JSON object of names and new ones; a name is an argument of "
        "the signature (array) or a node (serving_default_array:0); default: all of serving_default"
    )
    prepare.add_argument("--source_dir", "--source-dir", required=True, help="folder of the SavedModel")
    prepare.add_argument("--dest_dir", "--dest-dir", required=True, help="folder to make")
    prepare.add_argument("--input", metavar="NAMES", help=names)
    prepare.add_argument("--output", metavar="NAMES", help="the same, of the outputs")
    prepare.add_argument("--tag", default="serve", help="of the graph in the SavedModel; default: serve")
    prepare.add_argument(
        "--variables",
        default="/variables/variables",
        metavar="PREFIX",
        help="of the files of variables in the source; default: /variables/variables",
    )
    prepare.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not run both models on random input first",
    )
    prepare.set_defaults(run=_prepare)
    _add_serve(actions.add_parser("serve", help="SavedModels over HTTP and gRPC, as hosted models are"))


def _prepare(arguments: argparse.Namespace) -> None:
    prepared = xee_tf.prepare_model(**options_of(xee_tf.prepare_model, arguments))
    print(f"Wrote {prepared}")


def _add_serve(parser: Parser) -> None:
    parser.description = (
        "Serve SavedModels at the addresses of TensorFlow Serving (REST and gRPC), Vertex AI and AI "
        "Platform, until Ctrl-C or SIGTERM; requests under way are answered first. It asks nobody who "
        "they are."
    )
    parser.add_argument(
        "folder", metavar="DIR", help="a SavedModel; a folder of its versions; or a folder of models"
    )
    parser.add_argument("--port", type=int, default=8501, help="of HTTP; 0: any that is free; default: 8501")
    parser.add_argument("--grpc-port", type=int, default=8500, metavar="PORT", help="default: 8500")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    parser.add_argument("--name", help="of the model, if there is one; default: that of its folder")
    parser.add_argument(
        "--labels",
        nargs="+",
        type=label,
        action="extend",
        default=[],
        fits=is_assignment,
        metavar="LABEL=VERSION",
        help="names of versions, such as stable=1",
    )
    parser.add_argument(
        "--max-request-bytes", type=int, default=2**30, metavar="BYTES", help="default: 1 GiB"
    )
    parser.add_argument(
        "--max-concurrency", type=int, default=64, metavar="N", help="predictions at a time; default: 64"
    )
    parser.add_argument(
        "--max-batch-size",
        type=int,
        default=0,
        metavar="N",
        help="instances of small requests that run together, such as 32; default: 0, none",
    )
    parser.set_defaults(run=_serve, command="model serve")


def _serve(arguments: argparse.Namespace) -> None:
    options = options_of(xee_tf.serve, arguments, labels=dict(arguments.labels))
    with stop_signal() as stop, xee_tf.serve(arguments.folder, **options) as server:
        print(f"{', '.join(server.models)} at {server.url} and, by gRPC, {server.grpc}", flush=True)
        stop.wait()
