"""Packages that not every installation has: imports of them go through `extra`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from xee_tf.errors import MissingExtraError, XeeTFError

__all__ = ["extra", "require"]

_DISTRIBUTIONS = {"google": "google-auth", "google.auth": "google-auth", "grpc": "grpcio"}


@contextmanager
def extra(name: str, wanted: str) -> Iterator[None]:
    """Import packages of an extra of xee_tf in this block.

    Parameters
    ----------
    name : str
        The extra, as in pyproject.toml.
    wanted : str
        What cannot be done without it; the beginning of the message.

    Raises
    ------
    MissingExtraError
        If a package is not installed.

    Examples
    --------
    >>> with extra("tables", "A map of moods"):
    ...     import no_such_package
    Traceback (most recent call last):
        ...
    xee_tf.errors.MissingExtraError: A map of moods needs no_such_package, which is not installed: pip install
    "xee-tf[tables]"
    """
    try:
        yield
    except XeeTFError:
        raise
    except ImportError as error:
        absent = _absent(error)
        if absent is None:  # it is installed, but broken; its own words are best
            raise
        package = _DISTRIBUTIONS.get(absent, absent.partition(".")[0])
        raise MissingExtraError(
            f'{wanted} needs {package}, which is not installed: pip install "xee-tf[{name}]"', name=absent
        ) from error


def require(name: str, wanted: str, *modules: str) -> None:
    """Raise an error if modules of an extra are not installed, without importing them.

    Parameters
    ----------
    name, wanted : str
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
    with extra(name, wanted):
        for module in modules:
            if find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def _absent(error: BaseException | None) -> str | None:
    """The module that was not found; packages such as dask.dataframe raise errors of their own from it."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return error.name
        error = error.__cause__ or error.__context__
    return None
