"""Draw a sheet of patches with their labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xee_tf.classes import Color, Labels, find_labels
from xee_tf.errors import OptionError, shorten
from xee_tf.extras import extra
from xee_tf.options import integer, read_names
from xee_tf.pictures.sources import Batch, Shown, Wanted, read_patches
from xee_tf.sidecars import Exported
from xee_tf.training import Patches, PatchSequence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["show_patches"]

_SIDE = 1.6  # side of a patch in inches
_STRETCH = (2, 98)  # percentiles of the unmasked pixels that become black and white
_LEGEND = 24  # maximum number of classes in the legend


def show_patches(
    source: Exported | Patches | PatchSequence | xr.Dataset | Batch,
    *,
    n: int = 12,
    labels: str | Any = None,
    rgb: str | Sequence[str] | None = None,
    classes: xr.DataArray | Mapping[int, str] | Sequence[str] | None = None,
    colors: Mapping[int, Color] | Sequence[Color] | None = None,
    step: int = 0,
    seed: int | None = 0,
    storage_options: Mapping[str, Any] | None = None,
) -> NDArray[Any]:
    """Draw a sheet of patches, with their labels next to them, and read no other patches.

    Colors are stretched between the 2nd and the 98th percentile of the pixels on the sheet that are not
    masked, band by band. Masked pixels are hatched, and a dashed line is where the margin begins.

    Parameters
    ----------
    source : str, path-like, ExportResult, Patches, PatchSequence, Dataset, or batch
        * An export, as for `xee_tf.open_image`, or what `xee_tf.open_image` returns with ``margins="keep"``.
        * `xee_tf.Patches` or an `xee_tf.PatchSequence`: pixels as they are in the raster.
        * A batch ``(inputs, targets)`` of a PatchSequence or of `xee_tf.tf_dataset`, an array
          ``(patch, y, x)`` or ``(patch, y, x, band)``, or a mapping of band to array. The targets become the
          labels. The bands of an array are called "0", "1", ...
    n : int, default 12
        Maximum number of patches.
    labels : str or array-like, optional
        The band of labels; for arrays also the labels themselves, ``(patch, y, x)`` or one-hot.
    rgb : str or sequence of str, optional
        The bands for red, green and blue, or one band for gray. Default: red, green and blue if bands are
        called so, or B4, B3 and B2; otherwise the first three bands, or the first one.
    classes : DataArray, mapping of int to str, or sequence of str, optional
        Names of the classes: by number, in order from 0, or a map with the attributes that
        `xee_tf.class_map` writes. Default: the attributes of the labels, if they have any.
    colors : mapping of int to color, or sequence of colors, optional
        Colors of the classes, ``"#rrggbb"`` or ``(red, green, blue)``. Default: those of `classes`, or
        Matplotlib's ``tab20``.
    step : int, default 0
        The step of bands with another dimension, such as time.
    seed : int or None, default 0
        Seed of the random choice of patches. None shows the first ones.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        The axes of the images, and with labels those of the labels: shape ``(patches, 1)`` or
        ``(patches, 2)``. ``axes[0, 0].figure`` is the figure.

    Raises
    ------
    OptionError
        If an option is not valid, or there is no such band.
    MissingShardError, MixerError, RecordError
        If the export was not found or is damaged.
    MissingExtraError
        If Matplotlib is not installed (extra ``plot``).

    Examples
    --------
    >>> import numpy as np, xarray as xr, xee_tf
    >>> rng = np.random.default_rng(0)
    >>> ds = xr.Dataset({"B4": (("y", "x"), rng.random((64, 64), "float32")),
    ...                  "landcover": (("y", "x"), rng.integers(0, 3, (64, 64), "uint8"))},
    ...                 coords={"y": 5e6 - 30 * np.arange(64.0), "x": 7e5 + 30 * np.arange(64.0)},
    ...                 attrs={"crs": "EPSG:32633"})
    >>> patches = xee_tf.open_patches(ds, patch_dimensions=16, kernel_size=4)
    >>> axes = xee_tf.show_patches(patches, n=6, labels="landcover", classes=["soil", "forest", "water"])
    >>> axes.shape, axes[0, 0].get_title("left")
    ((6, 2), '0')
    """
    wanted = Wanted(
        n=integer(1)(n, "n"),
        seed=None if seed is None else integer(0)(seed, "seed"),
        rgb=() if rgb is None else read_names(rgb, "rgb", ("B4", "B3", "B2")),
        labels=labels,
        step=integer(0)(step, "step"),
        storage_options=storage_options,
    )
    if len(wanted.rgb) not in (0, 1, 3):
        raise OptionError(f"rgb must name one band or three; got {shorten(repr(rgb))}.")
    with extra("plot", "A sheet of patches"):
        import matplotlib.pyplot as plt  # noqa: F401
    shown = read_patches(source, wanted)
    return _draw(shown, _labels_of(shown, classes, colors))


def _draw(shown: Shown, found: Labels | None) -> NDArray[Any]:
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    count, pair = len(shown.names), 2 if shown.bands and shown.labels is not None else 1
    # Wide sheets are easier to read than high ones.
    across = min(count, max(1, round(math.sqrt(count * 1.5 / pair))))
    down = -(-count // across)
    images = _image(shown) if shown.bands else None
    first = images if images is not None else shown.labels
    assert first is not None
    height, width = first.shape[1:3]
    scale = _SIDE / max(height, width)
    size = (across * pair * (width * scale + 0.12) + 0.3, down * (height * scale + 0.32) + 0.7)
    figure = plt.figure(figsize=size, layout="constrained")
    layers = [] if images is None else [images]
    handles: list[Any] = []
    if shown.labels is not None:
        painted, handles = _paint(shown, found)
        layers.append(painted)
    axes = np.empty((count, pair), object)
    for number in range(count):
        for at, layer in enumerate(layers):
            row, column = divmod(number, across)
            ax = figure.add_subplot(down, across * pair, row * across * pair + column * pair + at + 1)
            axes[number, at] = ax
            _add_patch(ax, layer[number], shown.margin)
        axes[number, 0].set_title(shown.names[number], fontsize="small", loc="left", pad=2)
    if any((layer[..., 3] == 0).any() for layer in layers):
        handles.append(Patch(facecolor="0.92", hatch="////", edgecolor="0.6", label="masked"))
    if any(shown.margin):
        handles.append(Line2D([], [], color="#c0569e", ls="--", lw=1, label="margin begins"))
    if handles:
        columns = max(1, min(len(handles), int(size[0] / 1.3)))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize="small"
        )
    return axes


def _add_patch(ax: Axes, image: NDArray[Any], margin: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    ax.set(xticks=[], yticks=[])
    ax.set_facecolor("0.92")
    ax.patch.set(hatch="////", edgecolor="0.6")
    ax.imshow(image, interpolation="nearest")
    if any(margin):
        height, width = image.shape[:2]
        corner = (margin[0] - 0.5, margin[1] - 0.5)
        inner = (width - 2 * margin[0], height - 2 * margin[1])
        ax.add_patch(Rectangle(corner, *inner, fill=False, edgecolor="#c0569e", ls="--", lw=1))


def _image(shown: Shown) -> NDArray[np.float32]:
    """Return RGBA images (patch, y, x, 4); masked pixels are transparent."""
    channels, masked = [], np.zeros(next(iter(shown.bands.values())).shape, bool)
    for name, values in shown.bands.items():
        mask = shown.masks[name] | ~np.isfinite(values)
        valid = values[~mask].astype("float64")
        low, high = np.percentile(valid, _STRETCH) if valid.size else (0, 1)
        if high <= low:
            low, high = low - 0.5, high + 0.5
        scaled = (np.where(mask, low, values) - low) / (high - low)
        channels.append(scaled.clip(0, 1))
        masked |= mask
    colors = channels if len(channels) == 3 else channels[:1] * 3
    return np.stack([*colors, ~masked], -1).astype(np.float32)


def _paint(shown: Shown, found: Labels | None) -> tuple[NDArray[np.float32], list[Any]]:
    """Return the labels as RGBA images, and the handles of the legend."""
    import matplotlib as mpl
    from matplotlib.patches import Patch

    assert shown.labels is not None
    assert shown.labels_mask is not None
    labels, masked = shown.labels, shown.labels_mask | ~np.isfinite(shown.labels)
    values = np.unique(labels[~masked])
    image = np.zeros((*labels.shape, 4), np.float32)
    if len(values) > 256 or (values != np.round(values)).any():  # no classes, but numbers such as heights
        low, high = float(values.min()), float(values.max())
        image[:] = mpl.colormaps["viridis"](np.where(masked, 0, (labels - low) / ((high - low) or 1)))
        image[masked] = 0
        return image, []
    names = {} if found is None else found.names
    given = {} if found is None else found.colors
    known = sorted({*map(int, values), *names})
    palette = mpl.colormaps["tab20" if len(known) > 10 else "tab10"]
    handles = []
    for at, value in enumerate(known):
        color = np.array(given[value]) / 255 if value in given else np.array(palette(at % palette.N)[:3])
        image[(labels == value) & ~masked] = (*color, 1)
        handles.append(
            Patch(facecolor=tuple(color), edgecolor="0.6", linewidth=0.5, label=names.get(value, str(value)))
        )
    more = len(handles) - _LEGEND
    if more > 0:
        handles = [*handles[:_LEGEND], Patch(facecolor="none", label=f"and {more} more")]
    return image, handles


def _labels_of(shown: Shown, classes: Any, colors: Any) -> Labels | None:
    """Return the names and colors of the classes, from options or from attributes."""
    if isinstance(classes, xr.DataArray):
        found = find_labels(classes.attrs)
        if found is None:
            raise OptionError(
                "classes must be a map with the attributes flag_values and flag_meanings, as "
                "xee_tf.class_map writes them; these are missing. Pass names, such as {1: 'forest'}."
            )
    else:
        names = _by_number(classes, "classes", "names, such as {1: 'forest', 2: 'water'}")
        found = find_labels(shown.attrs) if names is None else Labels(names, {})
    painted = _by_number(colors, "colors", "colors, such as {1: '#008000', 2: '#0000ff'}")
    if painted is None:
        return found
    with extra("plot", "A sheet of patches"):
        from matplotlib.colors import to_rgb
    rgb = {}
    for value, color in painted.items():
        try:
            mixed = to_rgb(color) if isinstance(color, str) else tuple(part / 255 for part in color)
            red, green, blue = (round(part * 255) for part in mixed)
        except (TypeError, ValueError):
            raise OptionError(
                f"colors[{value!r}] must be a color such as '#2f7d4f' or (47, 125, 79); got "
                f"{shorten(repr(color))}."
            ) from None
        rgb[value] = (red, green, blue)
    return Labels({} if found is None else found.names, rgb)


def _by_number(values: Any, option: Literal["classes", "colors"], what: str) -> dict[int, Any] | None:
    if values is None:
        return None
    if isinstance(values, Mapping) and all(isinstance(key, int | np.integer) for key in values):
        return {int(key): value for key, value in values.items()}
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return dict(enumerate(values))
    raise OptionError(
        f"{option} must be {what}, or a list of them from class 0; got {shorten(repr(values))}."
    )
