"""Find the models in a folder, and their versions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xee_tf.errors import MissingModelError, ModelError, OptionError
from xee_tf.models import ModelFiles, require_saved_model
from xee_tf.remote import parse_int64
from xee_tf.storage import Location, PathLike

__all__ = ["find_models", "local_models"]

Versions = Mapping[int, Path]


@contextmanager
def local_models(
    path: PathLike, name: str | None = None, storage_options: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Versions]]:
    """Provide local folders of the SavedModels at a path or URL by name and version, as `find_models` does.

    Those at a URL are copied to a temporary folder, which exists until the block ends. See `xee_tf.serve` for
    `path` and `name`.
    """
    files = ModelFiles.of(path, storage_options)
    with files.local_copy(None if files.location.is_local else _model_paths(files)) as folder:
        # Links are not resolved, because the name of a link is the name of the model.
        yield find_models(Path(folder), name, files.location)


def _model_paths(files: ModelFiles) -> dict[str, str]:
    """Return the files of the SavedModels in a remote folder; see `ModelFiles.paths`."""
    try:
        paths = files.paths()
        found = [re.fullmatch(r"((?:[^/]+/){0,2})saved_model\.pb", name) for name in paths.values()]
        models = tuple(f"/{match[1]}" for match in found if match is not None and _is_model(match[1]))
        if not models:
            require_saved_model(files.location)
    except MissingModelError as error:
        if not files.location.is_web:
            raise
        raise MissingModelError(
            f"{error} On a web server, models are found only if it lists the files of folders."
        ) from error
    return {path: name for path, name in paths.items() if f"/{name}".startswith(models)}


def _is_model(folder: str) -> bool:
    """Return whether a folder is where `find_models` looks.

    This is the folder itself, the folder of a model or version, or a version of one of several models.
    """
    names = folder.split("/")[:-1]
    return len(names) < 2 or parse_int64(names[-1]) is not None


def find_models(folder: Path, name: str | None = None, source: Location | None = None) -> dict[str, Versions]:
    """Return the SavedModels in a local folder by name and version.

    A SavedModel in a folder that is not named by a number is version 1. Errors are about `source`, of which
    the folder may be a copy.
    """
    source = source or Location.of(folder)
    if versions := _versions(folder):
        models = {folder.name: versions}
    elif _is_saved_model(folder):
        version = parse_int64(folder.name)
        models = {folder.name: {1: folder}} if version is None else {folder.parent.name: {version: folder}}
    else:
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
        models = {entry.name: found for entry in entries if (found := _model_versions(entry))}
        if not models:
            require_saved_model(source)
            raise ModelError(f"{source} does not contain a SavedModel.")
    if name is not None:
        if len(models) > 1:
            raise OptionError(
                f"name={name!r} requires a single model, but {source} contains {', '.join(models)}."
            )
        models = {name: next(iter(models.values()))}
    for each in models:
        if not each or set(each) & set("/:?#%"):
            raise OptionError(
                f"The model name {each!r} cannot be part of a URL: pass name=... without /:?#%."
            )
    return models


def _model_versions(folder: Path) -> Versions:
    """Return the versions of the model in a folder; empty if it does not contain one."""
    return {1: folder} if _is_saved_model(folder) else _versions(folder)


def _versions(folder: Path) -> Versions:
    """Return the SavedModels in numbered subfolders."""
    entries = folder.iterdir() if folder.is_dir() else ()
    numbered = ((parse_int64(entry.name), entry) for entry in entries)
    return {version: entry for version, entry in numbered if version is not None and _is_saved_model(entry)}


def _is_saved_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file()
