"""``xee-tf model``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token

import xee_tf
from xee_tf.cli.command import command
from xee_tf.cli.loading import model_at
from xee_tf.cli.options import FilePath, Name, Number, parse_pairs
from xee_tf.cli.outcome import Outcome, attributes
from xee_tf.connector import TensorInfo
from xee_tf.models import Transport
from xee_tf.serving import LOGGER, stop_signal

__all__ = ["inspect", "prepare", "serve"]


@command()
def inspect(
    model: FilePath,
    /,
    *,
    name: Annotated[str | None, Name] = None,
    signature: Annotated[str | None, Name] = None,
) -> Outcome:
    """Show the inputs and outputs of a model with their names, dtypes and shapes.

    A Keras or ONNX file is loaded, and a server is asked for its metadata.

    Example: xee-tf model inspect model.keras

    Parameters
    ----------
    model
        Folder of a SavedModel, a .keras, .h5 or .onnx file, or the .json file of a STAC item that describes
        the model: a path or a URL. Or a model on a server like TensorFlow Serving:
        http://models:8501/v1/models/NAME or, over gRPC, grpc://models:8500/NAME. With --name, the address of
        the server is enough: http://models:8501 or models:8500.
    name
        Name of the model on the server.
    signature
        Signature of a SavedModel or of the model on the server. Default: serving_default.
    """
    if name is not None:
        transport: Transport = "rest" if model.startswith(("http://", "https://")) else "grpc"
        opened = xee_tf.Model.from_tf_serving(model, name, signature_name=signature, transport=transport)
    else:
        opened = model_at(model, signature=signature)
    found = opened.connector.signature()  # which the repr shows as soon as it is known
    values = {
        "model": opened.connector,
        "inputs": _tensors(found.inputs or {}),
        "outputs": _tensors(found.outputs or {}),
    }
    return Outcome(str(opened), values)


def _tensors(found: Mapping[str, TensorInfo]) -> dict[str, Any]:
    return {name: attributes(info, "dtype", "shape") for name, info in found.items()}


@command(xee_tf.prepare_model)
def prepare(
    *,
    source_dir: Annotated[FilePath, Parameter(metavar="FOLDER")],
    dest_dir: Annotated[FilePath, Parameter(metavar="FOLDER")],
    input: Annotated[str | None, Parameter(metavar="NAMES")] = None,
    output: Annotated[str | None, Parameter(metavar="NAMES")] = None,
    tag: Annotated[str, Name] = "serve",
    variables: Annotated[str, Parameter(metavar="PREFIX")] = "/variables/variables",
    verify: bool = True,
) -> Outcome:
    """Wrap a SavedModel so that it takes and returns the payloads of Earth Engine.

    These are URL-safe base64 strings of serialized TensorProtos. The options are those of "earthengine model
    prepare".

    Example: xee-tf model prepare --source-dir out/model --dest-dir out/prepared

    Parameters
    ----------
    input
        Names of inputs, separated by commas, or a JSON object that maps names to new names. A name is an
        argument of the signature (array) or a node (serving_default_array:0). Default: all inputs of the
        signature serving_default, or of the only signature.
    output
        Names of outputs, in the same form.
    """
    prepared = xee_tf.prepare_model(
        source_dir, dest_dir, input=input, output=output, tag=tag, variables=variables, verify=verify
    )
    return Outcome(f"Wrote {prepared}", {"destination": dest_dir})


def _labels(_: Any, tokens: Sequence[Token]) -> dict[str, int]:
    return parse_pairs([token.value for token in tokens], "LABEL=VERSION, such as stable=1")


@command(xee_tf.serve)
def serve(
    path: FilePath,
    /,
    *,
    port: Annotated[int, Number] = 8501,
    grpc_port: Annotated[int, Number] = 8500,
    host: Annotated[str, Parameter(metavar="ADDRESS")] = "127.0.0.1",
    name: Annotated[str | None, Name] = None,
    labels: Annotated[
        dict[str, int] | None,
        Parameter(
            converter=_labels,
            n_tokens=1,
            accepts_keys=False,
            allow_repeating=True,
            metavar="LABEL=VERSION[,LABEL=VERSION...]",
        ),
    ] = None,
    max_request_bytes: Annotated[int, Parameter(metavar="BYTES")] = 2**30,
    max_concurrency: Annotated[int, Number] = 64,
    max_batch_size: Annotated[int, Number] = 0,
    access_log: bool = True,
    progress: bool = True,
) -> Iterator[Outcome]:
    """Serve SavedModels over HTTP and gRPC, as TensorFlow Serving, Vertex AI and AI Platform do.

    The server runs until Ctrl-C or SIGTERM, and completes pending requests before it stops. It has no
    authentication.

    Example: xee-tf model serve out/model --port 8501

    Parameters
    ----------
    port
        HTTP port. 0 selects a free port.
    grpc_port
        gRPC port. 0 selects a free port.
    labels
        Labels of versions, such as stable=1.
    access_log
        Print a line to standard error for each request; not with --quiet.
    """
    if access_log and progress:
        _log_requests()
    server = xee_tf.serve(
        path,
        name=name,
        labels=labels,
        host=host,
        port=port,
        grpc_port=grpc_port,
        max_request_bytes=max_request_bytes,
        max_concurrency=max_concurrency,
        max_batch_size=max_batch_size,
    )
    models = {
        name: {
            "url": f"{server.url}/v1/models/{name}",
            "grpc": f"grpc://{server.grpc}/{name}",
            "signatures": signatures,
        }
        for name, signatures in server.signatures.items()
    }
    with stop_signal() as stop, server:
        served = "; ".join(
            f"{name} ({', '.join(each['signatures'])}) at {each['url']} and {each['grpc']}"
            for name, each in models.items()
        )
        yield Outcome(
            f"Serving {served}. Stop with Ctrl-C.", {"url": server.url, "grpc": server.grpc, "models": models}
        )
        stop.wait()


def _log_requests() -> None:
    """Print the access log of the server to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
