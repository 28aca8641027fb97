"""The mixer: the JSON sidecar of exported patches that describes their arrangement and georeference."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from affine import Affine

from xee_tf.display import Summarized, Summary, quoted
from xee_tf.errors import MissingShardError, MixerError, excerpt
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import grid_picture, grid_rows
from xee_tf.sidecars.missing import missing_error
from xee_tf.sidecars.names import MIXER
from xee_tf.sidecars.packing import matrix_of, parse_json, read_count, read_whole
from xee_tf.storage import Location, PathLike

__all__ = ["Mixer", "java_double"]

_CRS_KEYS = ("crs", "wkt", "crsCode", "crsWkt")
_AFFINE_KEYS = ("affine", "affineTransform", "transform", "crsTransform")
_AFFINE_PARTS = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
_MATRIX = "six finite numbers [x scale, x shear, x origin, y shear, y scale, y origin]"


@dataclass(frozen=True)
class Mixer(Summarized):
    """The sidecar that Earth Engine writes for exported patches (``<prefix>-mixer.json``).

    All sizes refer to patches without margins: the mixer does not contain kernels, bands or file names. Keys,
    their order and the formatting are the same as in files from Earth Engine.

    Parameters
    ----------
    crs : str
        The coordinate reference system as in the file: "EPSG:32119" or WKT.
    affine : Affine
        Maps pixel corners (column, row) of the whole grid to (x, y) in units of the CRS. The origin is the
        outer corner of the first pixel; any signs and shear are allowed.
    patch : Size
        Size of a patch in pixels, without its margin (``patchDimensions``).
    patches_per_row : int
        Number of columns of patches.
    total_patches : int
        Total number of patches, a multiple of `patches_per_row`; patches are numbered row by row.
    extra : mapping of str to object, optional
        Additional keys of the file that Earth Engine does not write; those of "projection" are nested.

    Raises
    ------
    MixerError
        If a value is invalid.

    Examples
    --------
    >>> mixer = Mixer("EPSG:32119", Affine(28.5, 0, 630534, 0, -28.5, 228114), Size(x=128, y=128), 3, 9)
    >>> mixer.rows
    3
    >>> print(mixer.text())
    {
      "projection": {
        "crs": "EPSG:32119",
        "affine": {
          "doubleMatrix": [28.5, 0.0, 630534.0, 0.0, -28.5, 228114.0]
        }
      },
      "patchDimensions": [128, 128],
      "patchesPerRow": 3,
      "totalPatches": 9
    }
    >>> Mixer.parse(mixer.text()) == mixer
    True
    """

    crs: str
    affine: Affine
    patch: Size
    patches_per_row: int
    total_patches: int
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _require_text("crs", self.crs)
        matrix = tuple(self.affine)[:6]
        if not all(map(math.isfinite, matrix)):
            raise MixerError(f"doubleMatrix must be {_MATRIX}; got {list(matrix)}.")
        if self.affine.is_degenerate:
            raise MixerError(f"doubleMatrix must be invertible; got {list(matrix)}.")
        _positive("patchDimensions", *self.patch.xy)
        _positive("patchesPerRow", self.patches_per_row)
        _positive("totalPatches", self.total_patches)
        if self.total_patches % self.patches_per_row:
            raise MixerError(
                f"totalPatches must be a multiple of patchesPerRow (whole rows of patches); "
                f"got {self.total_patches} and {self.patches_per_row}."
            )
        _merge(self._document(), self.extra)

    @property
    def rows(self) -> int:
        """Number of rows of patches."""
        return self.total_patches // self.patches_per_row

    @classmethod
    def from_grid(cls, grid: PatchGrid) -> Mixer:
        """Create the mixer of a patch grid.

        Parameters
        ----------
        grid : PatchGrid
            A grid with a CRS.

        Returns
        -------
        Mixer

        Raises
        ------
        MixerError
            If the grid has no CRS.

        Examples
        --------
        >>> grid = PatchGrid(Size(x=489, y=443), Size(x=128, y=64), crs="EPSG:32119")
        >>> Mixer.from_grid(grid).total_patches
        18
        """
        if grid.crs is None:
            raise MixerError("A mixer requires a CRS, but the grid has none: pass crs=, such as 'EPSG:4326'.")
        return cls(grid.crs, grid.affine, grid.patch, grid.patches_per_row, len(grid))

    def grid(self, margin: Size = Size(x=0, y=0)) -> PatchGrid:  # noqa: B008 - frozen
        """Return the patch grid that the mixer describes.

        Parameters
        ----------
        margin : Size, default Size(x=0, y=0)
            Margin around each patch in pixels, which the file does not contain; see `PatchGrid.margin_of`.

        Returns
        -------
        PatchGrid
            The grid, which covers whole patches.

        Examples
        --------
        >>> mixer = Mixer("EPSG:4326", Affine(0.5, 0, 0, 0, -0.5, 0), Size(x=256, y=128), 3, 15)
        >>> mixer.grid().shape
        Size(x=768, y=640)
        """
        shape = Size(x=self.patches_per_row * self.patch.x, y=self.rows * self.patch.y)
        return PatchGrid(shape, self.patch, margin, self.affine, self.crs)

    @classmethod
    def read(cls, path: PathLike | Location, storage_options: Mapping[str, Any] | None = None) -> Mixer:
        """Read a mixer from a local path or an fsspec URL.

        Parameters
        ----------
        path : str or path-like
            Local path or fsspec URL.
        storage_options : mapping of str to object, optional
            Options for fsspec.

        Returns
        -------
        Mixer

        Raises
        ------
        MissingShardError
            If the file does not exist. Pass the file itself, not the prefix or folder of an export.
        MixerError
            If the file is not a valid mixer; the message contains the file, the key and the value.

        Examples
        --------
        >>> mixer = Mixer("EPSG:4326", Affine(0.5, 0, 0, 0, -0.5, 0), Size(x=256, y=128), 3, 15)
        >>> location = mixer.write("memory://read-mixer/scene-mixer.json")
        >>> Mixer.read(location) == mixer
        True
        """
        return read_mixer(Location.of(path, storage_options))

    def write(self, path: PathLike | Location, storage_options: Mapping[str, Any] | None = None) -> Location:
        """Write the mixer to a local path or an fsspec URL, atomically.

        Parameters
        ----------
        path : str or path-like
            Local path or fsspec URL.
        storage_options : mapping of str to object, optional
            Options for fsspec.

        Returns
        -------
        Location
            The file.

        Raises
        ------
        DestinationError
            If the file cannot be written.

        Examples
        --------
        >>> mixer = Mixer("EPSG:4326", Affine(0.5, 0, 0, 0, -0.5, 0), Size(x=256, y=128), 3, 15)
        >>> mixer.write("memory://write-mixer/scene-mixer.json").name
        'scene-mixer.json'
        """
        location = Location.of(path, storage_options)
        location.write_bytes(self.text().encode())
        return location

    @classmethod
    def parse(cls, text: str, source: str = "the mixer") -> Mixer:
        """Parse the text of a mixer.

        Variants from other tools and other parts of Earth Engine are accepted: unknown keys are kept in
        `extra`; the CRS may be WKT, under "crs" or "wkt"; the affine may be ``{"doubleMatrix": [...]}``, a
        plain list (also under "transform" or "crsTransform") or ``{"scaleX": ...}``. Values are checked
        strictly.

        Parameters
        ----------
        text : str
            JSON.
        source : str, default "the mixer"
            Name of the source in error messages, usually the path.

        Returns
        -------
        Mixer

        Raises
        ------
        MixerError
            If it is not a valid mixer; the message contains the key, the value and the expected value.

        Examples
        --------
        >>> Mixer.parse('{"projection": {"crs": "EPSG:4326"}}', "scene-mixer.json")
        Traceback (most recent call last):
        ...
        xee_tf.errors.MixerError: scene-mixer.json: projection has no "affine" (expected "affine": \
{"doubleMatrix": [...]}).
        """
        try:
            return cls._parse(text)
        except MixerError as error:
            raise MixerError(f"{source}: {error}") from None

    @classmethod
    def _parse(cls, text: str) -> Mixer:
        try:
            document = parse_json(text)
        except (ValueError, RecursionError) as error:
            raise MixerError(f"not valid JSON ({error}).") from None
        if not isinstance(document, dict):
            raise MixerError(f"a mixer is a JSON object; got {excerpt(document)}.")
        rest = dict(document)
        projection = _take(rest, ("projection",), '"projection": {"crs": ..., "affine": ...}', "it")[1]
        if not isinstance(projection, dict):
            raise MixerError(f"projection must be an object; got {excerpt(projection)}.")
        inner = dict(projection)
        crs = _take(inner, _CRS_KEYS, '"crs": "EPSG:4326" or WKT', "projection")[1]
        key, transform = _take(inner, _AFFINE_KEYS, '"affine": {"doubleMatrix": [...]}', "projection")
        matrix, unknown = _read_matrix(key, transform)
        if unknown:
            inner["affine"] = unknown
        if inner:
            rest["projection"] = inner
        dimensions = _take(rest, ("patchDimensions",), '"patchDimensions": [width, height]', "it")[1]
        if not isinstance(dimensions, list) or len(dimensions) != 2:
            raise MixerError(f"patchDimensions must be [width, height]; got {excerpt(dimensions)}.")
        return cls(
            crs,
            Affine(*matrix),
            Size(x=dimensions[0], y=dimensions[1]),
            _take(rest, ("patchesPerRow",), '"patchesPerRow": patches per row', "it")[1],
            _take(rest, ("totalPatches",), '"totalPatches": number of patches', "it")[1],
            rest,
        )

    def text(self) -> str:
        """Return the text of the file, byte for byte as Earth Engine writes it (without a final newline).

        Returns
        -------
        str
            JSON.

        Examples
        --------
        >>> mixer = Mixer("EPSG:4326", Affine(0.5, 0, 0, 0, -0.5, 0), Size(x=256, y=128), 3, 15)
        >>> mixer.text().splitlines()[-2]
        '  "totalPatches": 15'
        """
        return _render(_merge(self._document(), self.extra))

    def _summary(self) -> Summary:
        grid = self.grid()
        patches, raster, _ = grid_rows(grid)
        rows = [
            patches,
            raster,
            ("affine", ", ".join(f"{number!r}" for number in tuple(self.affine)[:6])),
            ("margins", "unknown: a mixer does not contain the kernel"),
            *([("other keys", quoted(self.extra))] if self.extra else []),
        ]
        return Summary("Mixer", "", rows, picture=grid_picture(grid))

    def _document(self) -> dict[str, Any]:
        return {
            "projection": {
                "crs": self.crs,
                "affine": {"doubleMatrix": matrix_of(self.affine)},
            },
            "patchDimensions": list(self.patch.xy),
            "patchesPerRow": self.patches_per_row,
            "totalPatches": self.total_patches,
        }


def read_mixer(location: Location, size: int | None = None) -> Mixer:
    """Read a mixer, with a single request if its size is known; see `Mixer.read`."""
    try:
        text = read_whole(location, size).decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        if location.is_folder():
            raise MissingShardError(
                f"{location} is a folder: pass the file of a mixer, such as {_example(location)}."
            ) from None
        raise missing_error(
            location, f"{location} was not found: pass the file of a mixer, such as {_example(location)}."
        ) from None
    except UnicodeDecodeError as error:
        raise MixerError(f"{location} is not a mixer: it is not UTF-8 text ({error.reason}).") from None
    return Mixer.parse(text, source=str(location))


def _example(location: Location) -> str:
    """Return the path of a mixer for an error: that of the export whose prefix or folder is passed."""
    if location.is_folder():
        found = [name for name in location.entries() if name.endswith(MIXER)]
        return str(location.child(found[0] if found else f"scene-{MIXER}"))
    return f"out/scene-{MIXER}" if location.name.endswith(MIXER) else str(location.with_suffix(f"-{MIXER}"))


def java_double(value: float) -> str:
    """Format a double like Java's ``Double.toString`` (JDK 19 and later: the shortest digits).

    Parameters
    ----------
    value : float
        Any finite double.

    Returns
    -------
    str

    Raises
    ------
    MixerError
        If the value is not finite, because JSON has no such numbers.

    Examples
    --------
    >>> [java_double(v) for v in (28.5, 30.0, 8.983152841195215e-05, -1e7, 0.001)]
    ['28.5', '30.0', '8.983152841195215E-5', '-1.0E7', '0.001']
    """
    value = float(value)
    if not math.isfinite(value):
        raise MixerError(f"JSON does not support {value!r}: the value must be a finite number.")
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)  # Python also writes the shortest digits, in the same format in this range
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    if len(digits) == 1:
        # Java always writes at least two digits, and chooses the closest two: 4.9E-324, not 5.0E-324.
        closest = Decimal(f"{value:.1e}")
        if float(closest) == value:
            sign, digits, exponent = closest.normalize().as_tuple()
    fraction = "".join(map(str, digits[1:])) or "0"
    return f"{'-' * sign}{digits[0]}.{fraction}E{int(exponent) + len(digits) - 1}"


def _require_text(key: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise MixerError(f'{key} must be a string such as "EPSG:4326" or WKT; got {excerpt(value)}.')


def _positive(key: str, *values: Any) -> None:
    for value in values:
        try:
            read_count(value, key, least=1)
        except TypeError as error:
            raise MixerError(f"{error}.") from None


def _take(container: dict[str, Any], keys: Sequence[str], expected: str, where: str) -> tuple[str, Any]:
    """Remove and return the first of `keys` (alternative spellings) that is present, with its value."""
    for key in keys:
        if key in container:
            return key, container.pop(key)
    others = f"; available keys: {quoted(container)}" if container else ""
    raise MixerError(f'{where} has no "{keys[0]}" (expected {expected}){others}.')


def _read_matrix(key: str, transform: Any) -> tuple[list[float], dict[str, Any]]:
    """Return the six numbers, and the unknown keys of the same object."""
    unknown: dict[str, Any] = {}
    values = transform
    if isinstance(transform, dict):
        unknown = dict(transform)
        if "doubleMatrix" in unknown:
            key, values = "doubleMatrix", unknown.pop("doubleMatrix")
        elif "scaleX" in unknown and "scaleY" in unknown:
            values = [unknown.pop(part, 0.0) for part in _AFFINE_PARTS]  # the REST API omits zeros
    if not isinstance(values, list) or len(values) != 6:
        raise MixerError(f"{key} must be {_MATRIX}; got {excerpt(values)}.")
    numbers = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MixerError(f"{key} must be {_MATRIX}; one of them is {excerpt(value)}.")
        try:
            numbers.append(float(value))
        except OverflowError:
            numbers.append(math.inf)
    return numbers, unknown


def _merge(document: dict[str, Any], extra: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    merged = dict(document)
    for key, value in extra.items():
        if not isinstance(key, str):
            raise MixerError(f"extra must have strings as keys; got {key!r}.")
        if key not in merged:
            merged[key] = value
        elif isinstance(merged[key], dict) and isinstance(value, Mapping):
            merged[key] = _merge(merged[key], value, f"{path}{key}.")
        else:
            raise MixerError(f"extra cannot replace the key {path + key!r}: set the matching field of Mixer.")
    return merged


def _render(value: Any, indent: str = "") -> str:
    """Format JSON with one line per key of an object, and arrays on a single line."""
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        inner = indent + "  "
        lines = (f"{inner}{_render(key)}: {_render(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_render(item, indent) for item in value) + "]"
    if isinstance(value, float):
        return java_double(value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        raise MixerError(f"extra contains {excerpt(value)}, which cannot be encoded as JSON.") from None
