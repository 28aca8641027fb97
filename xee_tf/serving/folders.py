"""Find the models in a folder, and their versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xee_tf.errors import ModelError, OptionError
from xee_tf.models import require_saved_model
from xee_tf.remote import parse_int64
from xee_tf.storage import Location, PathLike

__all__ = ["find_models"]

Versions = Mapping[int, Path]


def find_models(path: PathLike, name: str | None = None) -> dict[str, Versions]:
    """Return the SavedModels in a folder by name and version; see `xee_tf.serve` for `path` and `name`.

    A SavedModel in a folder that is not named by a number is version 1.
    """
    location = Location.of(path)
    if "://" in location.url:
        raise OptionError(f"Models can be served only from local folders: copy {location} to one first.")
    # Links are not resolved, because the name of a link is the name of the model.
    folder = Path(location.url)
    if versions := _versions(folder):
        models = {folder.name: versions}
    elif _is_saved_model(folder):
        version = parse_int64(folder.name)
        models = {folder.name: {1: folder}} if version is None else {folder.parent.name: {version: folder}}
    else:
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
        models = {entry.name: found for entry in entries if (found := _model_versions(entry))}
        if not models:
            require_saved_model(location)
            raise ModelError(f"{folder} does not contain a SavedModel.")
    if name is not None:
        if len(models) > 1:
            raise OptionError(
                f"name={name!r} requires a single model, but {folder} contains {', '.join(models)}."
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
