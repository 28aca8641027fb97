"""Prepare models for Earth Engine, as ``earthengine model prepare`` does."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xee_tf.display import Summarized, Summary
from xee_tf.errors import DestinationExistsError, ModelError
from xee_tf.models import ModelFiles, is_prepared, read_meta_graph, require_saved_model
from xee_tf.options import check_flags
from xee_tf.prepare.nodes import NodesLike, read_nodes, select_nodes
from xee_tf.signals import interruptible
from xee_tf.storage import Location, PathLike, require_writable

__all__ = ["PreparedModel", "prepare_model"]

_VARIABLES = "/variables/variables"


@dataclass(frozen=True)
class PreparedModel(Summarized):
    """Result of `prepare_model`.

    Parameters
    ----------
    path : str
        Folder of the prepared model.
    inputs : tuple of str
        Names of the inputs, with the dtype and shape of the tensors in the strings.
    outputs : tuple of str
        Names of the outputs, with the dtype and shape of the tensors in the strings.

    Examples
    --------
    >>> import xee_tf
    >>> inputs, outputs = ("array (float32, ? × 2)",), ("ndvi (float32, ? × 1)",)
    >>> print(xee_tf.PreparedModel("models/prepared", inputs, outputs))
    models/prepared
      inputs   array (float32, ? × 2)
      outputs  ndvi (float32, ? × 1)
    """

    path: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}\n  inputs   {', '.join(self.inputs)}\n  outputs  {', '.join(self.outputs)}"

    def _summary(self) -> Summary:
        rows = [("inputs", ", ".join(self.inputs)), ("outputs", ", ".join(self.outputs))]
        return Summary("PreparedModel", self.path, rows)


@interruptible()
def prepare_model(
    source_dir: PathLike,
    dest_dir: PathLike,
    *,
    input: NodesLike = None,
    output: NodesLike = None,
    tag: str = "serve",
    variables: str = _VARIABLES,
    verify: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> PreparedModel:
    """Wrap a SavedModel so that its inputs and outputs have the format that Earth Engine uses.

    Each input and output becomes a vector of strings, one for each instance of the batch: the URL-safe
    base64 of a serialized TensorProto. This is the payload format ``SERIALIZED_TF_TENSORS``. The result has
    the same names as with ``earthengine model prepare``, but the model is wrapped in TensorFlow 2. This also
    supports models whose variables TensorFlow 1 cannot find, such as a Keras 3 model that was saved with
    ``tf.saved_model.save``.

    Parameters
    ----------
    source_dir : str or path-like
        Folder of a SavedModel: a local path or an fsspec URL.
    dest_dir : str or path-like
        Folder to create: a local path or an fsspec URL. A local folder is written atomically; on an object
        store ``saved_model.pb`` is written last.
    input : str, sequence of str or mapping of str to str, optional
        Inputs, and their new names, which are the names of bands and properties in Earth Engine. Arguments
        of a signature (``"array"``), nodes of the graph (``"serving_default_array:0"``), a mapping of them to
        new names, or JSON or a comma-separated list as in Earth Engine's command. By default all inputs of
        the signature ``serving_default``, or of the only signature.
    output : str, sequence of str or mapping of str to str, optional
        Outputs, and their new names, in the same form as `input`.
    tag : str, default "serve"
        Tag of the graph in the SavedModel.
    variables : str, default "/variables/variables"
        Prefix of the variable files, relative to `source_dir`.
    verify : bool, default True
        Whether to run both models on random input and compare their outputs before `dest_dir` is written.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    PreparedModel
        Folder of the prepared model, and its inputs and outputs.

    Raises
    ------
    MissingModelError, ModelError
        If there is no SavedModel, it cannot be loaded or wrapped, or the outputs of the prepared model
        differ.
    OptionError
        If a name is not found in the model; the message lists the names of the model.
    DestinationExistsError
        If `dest_dir` exists.
    DestinationError
        If `dest_dir` cannot be written.

    Examples
    --------
    >>> import tempfile, tensorflow as tf, xee_tf
    >>> class Ndvi(tf.Module):
    ...     @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2], tf.float32, name="bands")])
    ...     def __call__(self, bands):
    ...         return {"ndvi": (bands[..., :1] - bands[..., 1:]) / (bands[..., :1] + bands[..., 1:])}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tf.saved_model.save(Ndvi(), f"{folder}/ndvi")
    ...     prepared = xee_tf.prepare_model(f"{folder}/ndvi", f"{folder}/prepared", input={"bands": "array"})
    >>> prepared.inputs, prepared.outputs
    (('array (float32, ? × ? × ? × 2)',), ('ndvi (float32, ? × ? × ? × 1)',))
    """
    check_flags(verify=verify)
    # These modules import TensorFlow.
    from xee_tf.prepare.verifying import verify as verify_wrapped
    from xee_tf.prepare.wrapping import load, save_wrapped, tensorflow_silenced

    inputs, outputs = read_nodes(input, "input"), read_nodes(output, "output")
    source, target = Location.of(source_dir, storage_options), Location.of(dest_dir, storage_options)
    require_saved_model(source)
    if target.exists():
        raise DestinationExistsError(f"{target} exists: choose another folder, or remove it first.")
    require_writable(target)
    with (
        tensorflow_silenced(),
        ModelFiles(source).local_copy() as folder,
        _created_folder(target) as created,
    ):
        graph = read_meta_graph(folder, tag)
        if is_prepared(graph):
            raise ModelError(
                f"{source} is already prepared: its inputs are base64 of serialized tensors. Pass the "
                "original model."
            )
        selection = select_nodes(graph, inputs, outputs)
        with _standard_variables(folder, variables) as standard:
            model = load(standard, graph, selection, tag)
        save_wrapped(model, created)
        if verify:
            verify_wrapped(model, created)
    return PreparedModel(
        str(target), tuple(map(str, model.inputs.values())), tuple(map(str, model.outputs.values()))
    )


@contextmanager
def _created_folder(target: Location) -> Iterator[str]:
    """Yield a local folder, which is moved or copied to the target if no error occurs."""
    if target.is_local:
        os.makedirs(os.path.dirname(target.path), exist_ok=True)
        folder = target.temporary().path
        try:
            yield folder
            os.rename(folder, target.path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield folder
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        try:
            for path in sorted(files, key=lambda path: (path.name == "saved_model.pb", path)):
                target.child(path.relative_to(folder).as_posix()).put_file(path)
        except BaseException:
            with suppress(OSError):
                target.remove(recursive=True)
            raise


@contextmanager
def _standard_variables(folder: str, variables: str) -> Iterator[str]:
    """Yield a folder of the model with the variables in the standard location."""
    if variables == _VARIABLES:
        yield folder
        return
    index = Path(folder, variables.lstrip("/") + ".index").absolute()
    if not index.is_file():
        raise ModelError(
            f"Variables {variables!r} not found in {folder}: there is no file {index.name} in {index.parent}."
        )
    with tempfile.TemporaryDirectory() as standard:
        os.mkdir(f"{standard}/variables")
        for path in index.parent.iterdir():
            if path.name.startswith(index.stem + "."):
                _link(path, f"{standard}/variables/variables{path.name[len(index.stem) :]}")
        for path in Path(folder).absolute().iterdir():
            if path.name != "variables":
                _link(path, f"{standard}/{path.name}")
        yield standard


def _link(path: Path, name: str) -> None:
    """Link to a file or folder, or copy it if links are not permitted, as for most users of Windows."""
    try:
        os.symlink(path, name)
    except OSError:
        if path.is_dir():
            shutil.copytree(path, name)
        else:
            shutil.copyfile(path, name)
