"""`prepare_model`: what ``earthengine model prepare`` does, in TensorFlow 2."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xee_tf.errors import DestinationExistsError, ModelError
from xee_tf.models import is_prepared, local_copy, read_meta_graph, require_saved_model
from xee_tf.options import check_flags
from xee_tf.prepare.nodes import NodesLike, read_nodes, select
from xee_tf.storage import Location, PathLike, require_writable

__all__ = ["PreparedModel", "prepare_model"]

_VARIABLES = "/variables/variables"


@dataclass(frozen=True)
class PreparedModel:
    """A model that `prepare_model` wrote.

    Parameters
    ----------
    path : str
        Its folder.
    inputs, outputs : tuple of str
        Names, with dtype and shape of the tensors that are in the strings.
    """

    path: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}\n  inputs   {', '.join(self.inputs)}\n  outputs  {', '.join(self.outputs)}"


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
    """Wrap a SavedModel so that it takes and returns what Earth Engine sends and expects.

    Every input and output becomes a vector of strings, one for each instance of the batch: the URL-safe
    base64 of a serialised TensorProto. This is the payload format ``SERIALIZED_TF_TENSORS``. It does what
    ``earthengine model prepare`` does, with its names for the result, but in TensorFlow 2: models whose
    variables are only found there (a Keras 3 model saved by ``tf.saved_model.save``) are served too.

    Parameters
    ----------
    source_dir : path-like
        Folder of a SavedModel, local or on an object store.
    dest_dir : path-like
        Folder to make. It appears whole or not at all; on an object store ``saved_model.pb`` comes last.
    input, output : str, sequence of str, or mapping, optional
        Which inputs and outputs, and what they are to be called: the names of bands and properties.
        Arguments of a signature (``"array"``), nodes of the graph (``"serving_default_array:0"``), a mapping
        from them to new names, or JSON or a list with commas, as in Earth Engine's command. Default: all of
        the signature ``serving_default``, or of the only one.
    tag : str
        Tag of the graph in the SavedModel.
    variables : str
        Prefix of the files of variables inside `source_dir`.
    verify : bool
        Whether the model and its copy are run on random input, and must answer alike, before
        the destination appears.
    storage_options : mapping, optional
        Handed to fsspec.

    Returns
    -------
    PreparedModel
        Where it is, and what is in its strings.

    Raises
    ------
    MissingModelError, ModelError
        If there is no SavedModel, it cannot be loaded or wrapped, or the copy answers otherwise.
    OptionError
        If a name is not in the model; the message lists those that are.
    DestinationExistsError
        If `dest_dir` exists.
    DestinationError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile, tensorflow as tf
    >>> class Ndvi(tf.Module):
    ...     @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2], tf.float32, name="bands")])
    ...     def __call__(self, bands):
    ...         return {"ndvi": (bands[..., :1] - bands[..., 1:]) / (bands[..., :1] + bands[..., 1:])}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tf.saved_model.save(Ndvi(), f"{folder}/ndvi")
    ...     prepared = prepare_model(f"{folder}/ndvi", f"{folder}/prepared", input={"bands": "array"})
    >>> prepared.inputs, prepared.outputs
    (('array (float32, ? × ? × ? × 2)',), ('ndvi (float32, ? × ? × ? × 1)',))
    """
    check_flags(verify=verify)
    # TensorFlow comes with them.
    from xee_tf.prepare.verifying import verify as verify_wrapped
    from xee_tf.prepare.wrapping import load, quiet, save_wrapped

    inputs, outputs = read_nodes(input, "input"), read_nodes(output, "output")
    source, target = Location.of(source_dir, storage_options), Location.of(dest_dir, storage_options)
    require_saved_model(source)
    if target.exists():
        raise DestinationExistsError(f"{target} exists: choose another folder, or remove it first.")
    require_writable(target)
    with quiet(), local_copy(source) as folder, _appearing(target) as made:
        graph = read_meta_graph(folder, tag)
        if is_prepared(graph):
            raise ModelError(f"{source} is prepared already: it takes base64 of serialised tensors.")
        selection = select(graph, inputs, outputs)
        with _usual_variables(folder, variables) as usual:
            model = load(usual, graph, selection, tag)
        save_wrapped(model, made)
        if verify:
            verify_wrapped(model, made)
    return PreparedModel(
        str(target), tuple(map(str, model.inputs.values())), tuple(map(str, model.outputs.values()))
    )


@contextmanager
def _appearing(target: Location) -> Iterator[str]:
    """A local folder to fill, which is put in its place if nothing goes wrong."""
    if target.is_local:
        os.makedirs(os.path.dirname(target.path), exist_ok=True)
        made = target.temporary().path
        try:
            yield made
            os.rename(made, target.path)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return
    with tempfile.TemporaryDirectory() as made:
        yield made
        files = [path for path in Path(made).rglob("*") if path.is_file()]
        try:
            for path in sorted(files, key=lambda path: (path.name == "saved_model.pb", path)):
                target.child(path.relative_to(made).as_posix()).put_file(path)
        except BaseException:
            with suppress(OSError):
                target.remove(recursive=True)
            raise


@contextmanager
def _usual_variables(folder: str, variables: str) -> Iterator[str]:
    """A folder that has the variables of the model where TensorFlow looks for them."""
    if variables == _VARIABLES:
        yield folder
        return
    index = Path(folder, variables.lstrip("/") + ".index").absolute()
    if not index.is_file():
        raise ModelError(
            f"There are no variables {variables!r} in {folder}: no file {index.name} in {index.parent}."
        )
    with tempfile.TemporaryDirectory() as usual:
        os.mkdir(f"{usual}/variables")
        for path in index.parent.iterdir():
            if path.name.startswith(index.stem + "."):
                _link(path, f"{usual}/variables/variables{path.name[len(index.stem) :]}")
        for path in Path(folder).absolute().iterdir():
            if path.name != "variables":
                _link(path, f"{usual}/{path.name}")
        yield usual


def _link(path: Path, name: str) -> None:
    """A link to a file or folder; a copy where links are not allowed, as for most users of Windows."""
    try:
        os.symlink(path, name)
    except OSError:
        if path.is_dir():
            shutil.copytree(path, name)
        else:
            shutil.copyfile(path, name)
