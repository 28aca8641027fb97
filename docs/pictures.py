"""Make the pictures of the landing page and of the page Pictures from the demo: ``python docs/pictures.py``.

The results are committed in docs/_static, because they need the demo's data and a minute of training.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import rasterio
import xarray as xr
from PIL import Image, ImageDraw

import xee_tf
from xee_tf import demo

HERE = Path(__file__).parent / "_static"
SCALE = 2
SHOWN = ("swir", "nir", "red")

Pixels = npt.NDArray[np.uint8]


def main() -> None:
    """Write all pictures."""
    scene = demo.open_scene(demo.find_data())
    page_pictures(scene)
    scene = scene.compute()
    with tempfile.TemporaryDirectory() as folder:
        result = demo.run(folder)
        with rasterio.open(next(file for file in result.files if file.suffix == ".tif")) as tif:
            classes = tif.read(1)
    limits = {name: scene[name].quantile([0.02, 0.98]).values for name in SHOWN}
    patches = xee_tf.open_patches(scene, patch_dimensions=demo.PATCH, kernel_size=demo.KERNEL)
    grid = xee_tf.PatchGrid(
        xee_tf.Size(x=scene.sizes["x"], y=scene.sizes["y"]),
        xee_tf.Size.from_xy(demo.PATCH, "patch"),
        xee_tf.Size.from_xy(demo.MARGIN, "margin", least=0),
    )
    rgb = stretch({name: scene[name].values for name in SHOWN}, limits)
    grid_picture(rgb, grid).save(HERE / "landing-grid.webp", quality=82)
    sheet(patches, limits, grid, classes.shape).save(HERE / "landing-patches.webp", quality=82)
    picture(colored(classes)).resize((classes.shape[1] * SCALE, classes.shape[0] * SCALE), 0).save(
        HERE / "landing-map.webp", quality=82
    )


def page_pictures(scene: xr.Dataset) -> None:
    """Draw the pictures of the page about pictures, as its code does."""
    plan = scene.tfexport.plan(patch_dimensions=demo.PATCH, kernel_size=demo.KERNEL)
    split = xee_tf.split_patches(plan, {"train": 0.8, "test": 0.2}, seed=1)
    for name, source in (("plan", plan), ("split", split)):
        figure, axes = plt.subplots(figsize=(4, 3.6))
        source.plot(ax=axes)
        figure.savefig(HERE / f"pictures-{name}.webp", dpi=110, bbox_inches="tight")
    xee_tf.show_patches(
        xee_tf.open_patches(scene, patch_dimensions=demo.PATCH, kernel_size=demo.KERNEL),
        n=6,
        rgb=list(SHOWN),
        labels="label",
        classes={number: name for number, (name, _) in demo.CLASSES.items()},
        colors={number: color for number, (_, color) in demo.CLASSES.items()},
    )
    plt.gcf().savefig(HERE / "pictures-patches.webp", dpi=90, bbox_inches="tight")


def stretch(bands: dict[str, npt.NDArray], limits: dict[str, npt.NDArray]) -> Pixels:
    """Return three bands as colors with transparency where they are masked."""
    channels = [
        np.clip((bands[name] - low) / (high - low), 0, 1) * 255 for name, (low, high) in limits.items()
    ]
    valid = ~np.isnan(np.stack(channels)).any(axis=0)
    return np.dstack([*(np.nan_to_num(c) for c in channels), valid * 255]).astype(np.uint8)


def colored(classes: npt.NDArray) -> Pixels:
    """Return classes as colors; 0 is transparent."""
    table = np.zeros((256, 4), np.uint8)
    for number, (_, color) in demo.CLASSES.items():
        table[number] = (*bytes.fromhex(color[1:]), 255)
    return table[np.nan_to_num(classes).astype(np.uint8)]


def picture(pixels: Pixels) -> Image.Image:
    """Return pixels as an image."""
    return Image.fromarray(pixels, "RGBA")


def grid_picture(rgb: Pixels, grid: xee_tf.PatchGrid) -> Image.Image:
    """Draw the patches over the scene, and two of them with their margins."""
    image = picture(rgb).resize((rgb.shape[1] * SCALE, rgb.shape[0] * SCALE), Image.Resampling.BILINEAR)
    over = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(over)

    def box(window: xee_tf.Window) -> list[int]:
        return [SCALE * side for side in (window.left, window.top, window.right, window.bottom)]

    for index in range(len(grid)):
        draw.rectangle(box(grid.core(index)), outline=(255, 255, 255, 120))
    for index in (23, 46):
        draw.rectangle(box(grid.halo(index)), outline=(255, 120, 210, 255), fill=(255, 120, 210, 60), width=3)
        draw.rectangle(box(grid.core(index)), outline=(255, 255, 255, 255), width=4)
    over.putalpha(Image.fromarray(np.minimum(np.asarray(over)[..., 3], np.asarray(image)[..., 3])))
    return Image.alpha_composite(image, over)


def sheet(
    patches: xee_tf.Patches, limits: dict, grid: xee_tf.PatchGrid, shape: tuple[int, int]
) -> Image.Image:
    """Draw pairs of patches, margins included, and their labels."""
    size, gap, pairs, rows, margin = 190, 14, 3, 4, demo.MARGIN
    inner = size * demo.PATCH // (demo.PATCH + demo.KERNEL)
    side = (size - inner) // 2
    image = Image.new("RGBA", (shape[1] * SCALE, shape[0] * SCALE))
    indices = np.random.default_rng(4).permutation(len(grid))
    whole = [i for i in map(int, indices) if is_whole(patches[i], grid.halo(i), grid.shape.window)]
    for number, index in enumerate(whole[: pairs * rows]):
        row, pair = divmod(number, pairs)
        left, top = pair * (size + inner + 24), 36 + row * (size + gap)
        patch = patches[index]
        colors = stretch({name: patch[name] for name in SHOWN}, limits)
        image.paste(picture(colors).resize((size, size), Image.Resampling.BILINEAR), (left, top))
        label = colored(patch["label"][margin:-margin, margin:-margin])
        image.paste(
            picture(label).resize((inner, inner), Image.Resampling.NEAREST), (left + size + 8, top + side)
        )
        box = [left + side, top + side, left + side + inner, top + side + inner]
        ImageDraw.Draw(image).rectangle(box, outline=(255, 255, 255, 255), width=3)
    return image


def is_whole(patch: dict[str, npt.NDArray], halo: xee_tf.Window, raster: xee_tf.Window) -> bool:
    """Return whether all pixels of a patch, margin included, are valid and in the raster."""
    return halo.intersection(raster) == halo and all(np.all(patch[name] > 0) for name in ("label", *SHOWN))


if __name__ == "__main__":
    main()
