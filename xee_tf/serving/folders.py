"""Which models and versions a folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xee_tf.errors import ModelError, OptionError
from xee_tf.models import require_saved_model
from xee_tf.storage import Location, PathLike

__all__ = ["find_models"]

Versions = Mapping[int, Path]


def find_models(path: PathLike, name: str | None = None) -> dict[str, Versions]:
    """The SavedModels in a folder, by the name and version under which they are served.

    `path` and `name` are those of `xee_tf.serve`. A SavedModel whose folder is not a number is version 1.
    """
    if "://" in str(path):
        raise OptionError(f"Models are served from local folders; copy {path} first.")
    # As it is written, not where links lead: their names are the ones that were chosen.
    folder = Path(path).expanduser().absolute()
    if versions := _versions(folder):
        models = {folder.name: versions}
    elif _is_saved_model(folder) and folder.name.isdecimal():
        models = {folder.parent.name: {int(folder.name): folder}}
    elif _is_saved_model(folder):
        models = {folder.name: {1: folder}}
    else:
        inner = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
        models = {entry.name: found for entry in inner if (found := _one_model(entry))}
        if not models:
            require_saved_model(Location.of(str(folder)))
            raise ModelError(f"{folder} holds no SavedModel.")
    if name is not None:
        if len(models) > 1:
            raise OptionError(f"{folder} holds the models {', '.join(models)}; which cannot share a name.")
        models = {name: next(iter(models.values()))}
    for each in models:
        if not each or set(each) & set("/:?#%"):
            raise OptionError(f"{each!r} cannot be part of an address; give another name of the model.")
    return models


def _one_model(folder: Path) -> Versions:
    return {1: folder} if _is_saved_model(folder) else _versions(folder)


def _versions(folder: Path) -> Versions:
    entries = folder.iterdir() if folder.is_dir() else ()
    return {int(entry.name): entry for entry in entries if entry.name.isdecimal() and _is_saved_model(entry)}


def _is_saved_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file()
