"""Imports of optional packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec

from xee_tf.errors import MissingExtraError, XeeTFError
from xee_tf.tensorflow_log import importing_tensorflow

__all__ = ["extra", "require"]

_DISTRIBUTIONS = {"google": "google-auth", "google.auth": "google-auth", "grpc": "grpcio"}

_WITH_TENSORFLOW = ("tensorflow", "demo", "serve")


@contextmanager
def extra(name: str, feature: str) -> Iterator[None]:
    """Report a missing package of an extra as a `MissingExtraError`.

    Optional packages are imported in a ``with`` block of this context manager.

    Parameters
    ----------
    name : str
        Name of the extra, as in pyproject.toml.
    feature : str
        What needs the package; the message starts with it.

    Raises
    ------
    MissingExtraError
        If a package is not installed.

    Examples
    --------
    >>> with extra("tables", "A table"):
    ...     import no_such_package
    Traceback (most recent call last):
        ...
    xee_tf.errors.MissingExtraError: A table needs no_such_package, which is not installed: pip install
    "xee-tf[tables]"
    """
    try:
        with importing_tensorflow() if name in _WITH_TENSORFLOW else nullcontext():
            yield
    except XeeTFError:
        raise
    except ImportError as error:
        missing = _find_missing_module(error)
        if missing is None:  # the package is installed, but its import fails
            raise
        package = _DISTRIBUTIONS.get(missing, missing.partition(".")[0])
        raise MissingExtraError(
            f'{feature} needs {package}, which is not installed: pip install "xee-tf[{name}]"', name=missing
        ) from error


def require(name: str, feature: str, *modules: str) -> None:
    """Raise an error if modules of an extra are not installed, without importing them.

    Parameters
    ----------
    name, feature : str
        See `extra`.
    *modules : str
        Names of the modules.

    Raises
    ------
    MissingExtraError
        If a module is not found.

    Examples
    --------
    >>> require("hosted", "A hosted model", "no_such_package")
    Traceback (most recent call last):
    xee_tf.errors.MissingExtraError: A hosted model needs no_such_package, which is not installed: pip install
    "xee-tf[hosted]"
    """
    with extra(name, feature):
        for module in modules:
            if find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def _find_missing_module(error: BaseException | None) -> str | None:
    """Return the module that was not found; dask.dataframe, for example, raises its own error from it."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return error.name
        error = error.__cause__ or error.__context__
    return None
