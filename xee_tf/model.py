"""``Model``: a specification of a model with ways to make it and to predict with it. Thin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack, cast

import xarray as xr

from xee_tf.connector import Connector
from xee_tf.display import Summarised, Summary
from xee_tf.errors import OptionError
from xee_tf.models import (
    HOSTED_SPELLING,
    MODEL_SPELLING,
    FunctionConnector,
    HostedKeywords,
    HostedOptions,
    ModelKeywords,
    ModelSpec,
    SavedModelConnector,
    Transport,
    ai_platform_connector,
    keras_connector,
    spec_rows,
    tf_serving_connector,
    vertex_ai_connector,
)
from xee_tf.options import parse, spelled
from xee_tf.predict import (
    PREDICT_SPELLING,
    PredictKeywords,
    PredictOptions,
    predict_image,
    predict_properties,
)
from xee_tf.remote import PredictionStats, RemoteConnector, Route, collect_stats
from xee_tf.storage import PathLike
from xee_tf.tables import Table

__all__ = ["Model"]


class Model(Summarised, ModelSpec):
    """A model, and how rasters and tables become its inputs: what ``ee.Model`` is in Earth Engine.

    Made by `from_saved_model`, `from_keras`, `from_function`, `from_tf_serving`, `from_vertex_ai`,
    `from_ai_platform_predictor` or, for a way to a model of your own, `from_connector`. All take the
    options below by keyword, in this spelling or in Earth Engine's (``inputTileSize``). What a model tells of
    itself need not be said: sizes, dtypes, names. Nothing is loaded until it is needed.
    `dataclasses.replace` makes a copy with other options.

    Parameters
    ----------
    connector : Connector
        Where the model is.
    inputs : mapping from str to str, optional
        Bands, properties or columns, and the inputs of the model that they go to. Several with the same
        input are stacked along its last axis, in the order of the mapping. Default: those of the same
        names; or, where the model has one input, all stacked in it.
    bands : sequence of str, optional
        The bands or columns that the model sees; their order in a stacked input. Default: all, if the
        model takes that many.
    input_name : str, optional
        The input that bands are stacked in, where the model has several.
    input_properties : sequence of str, optional
        Properties that go with each instance; of an image they are replicated into each tile. For a table,
        its columns, in the order in which they are stacked.
    input_type_override : mapping, optional
        Types that bands and properties are coerced to: numpy's, or Earth Engine's pixel types. Fractions
        are dropped and ranges clamped. Default: what the model takes, if that loses nothing.
    input_shapes : mapping, optional
        Shapes of array bands: ``{"ndvi": [12]}``. The dimensions of the band with these sizes go to the
        model, as ``(n, height, width, *shape)`` where the band has an input of its own, and are not mapped
        over.
    array_dims : str or sequence of str, optional
        Dimensions beside y and x, for example ``("time",)``, that go to the model as a whole, in this
        order: ``(n, height, width, time, band)``, as `xee_tf.tf_dataset` gives ``[time, band]`` for training.
        A band without such a dimension is repeated at every step. All other dimensions are mapped over:
        each step is predicted by itself. ``()`` maps over every dimension. Default: those that
        `input_shapes` or the shapes of the model's own inputs call for. The order of dimensions in the image
        has no meaning.
    proj : Projection, tuple or mapping, optional
        The projection that the model wants, with its scale: ``("EPSG:32633", 30)``. See `Projection.of`.
    fix_input_proj : bool
        Whether pixels are sampled in `proj` rather than in the projection of the image.
    input_tile_size : int or (width, height)
        Pixels of a tile without its overlap. Default: what the model takes, less the overlap.
    input_overlap_size : int or (width, height)
        Pixels added along each edge, so that a tile of ``input_tile_size + 2 * input_overlap_size`` is
        sent (Earth Engine's reference, and the samples that run). It may be larger than the tile: a
        classifier of 3 x 3 neighbourhoods has a tile of 1 and an overlap of 1.
    overlap_is_total : bool
        `input_overlap_size` is the sum of both edges, as Earth Engine's guide to image predictions says.
    output_tile_size : int or (width, height), optional
        Pixels that come back for the `input_tile_size` pixels; another number changes the scale. Default:
        what the model gives, or `input_tile_size`.
    output_bands : mapping or sequence, optional
        ``{name: {"type": "float32", "dimensions": 1, "shape": [3]}}``, ``{name: "float32"}`` or names.
        ``dimensions`` is 0 for a scalar band, 1 for a vector in each pixel; ``shape`` (our addition) where
        the model does not tell it. The name of a single output is free; several are found by name. Several
        scalar bands of one output are its channels. An integer pixel type with a range, ``{"precision":
        "int", "min": 0, "max": 9}``, clamps values to it, and masked pixels get a value outside. Default:
        as the model tells.
    output_properties : mapping or sequence, optional
        The same for tables, where a range only chooses the type.
    output_multiplier : float
        About how many times more data the model gives than it takes; at least 1.

    Raises
    ------
    OptionError
        If an option cannot be used.

    Examples
    --------
    >>> index = Model.from_function(
    ...     lambda pixels: (pixels[..., 0] - pixels[..., 1]) / pixels.sum(-1),
    ...     bands=["B4", "B3"],
    ...     input_tile_size=256,
    ...     output_bands={"ndvi": "float32"},
    ... )
    >>> index
    <xee_tf.Model function <lambda>>
      tiles       256 × 256 px
      inputs      B4, B3
      array dims  none, all are mapped over
      outputs     ndvi: float32
    """

    @spelled(MODEL_SPELLING, ModelSpec)
    def __init__(self, connector: Connector, **options: Unpack[ModelKeywords]) -> None:
        super().__init__(connector, **cast(Any, options))

    @classmethod
    @spelled(MODEL_SPELLING, ModelSpec)
    def from_connector(cls, connector: Connector, **options: Unpack[ModelKeywords]) -> Model:
        """A model behind any connector; see `Model` for the options."""
        return cls(connector=connector, **options)

    @classmethod
    @spelled(MODEL_SPELLING, ModelSpec)
    def from_saved_model(
        cls,
        path: PathLike,
        *,
        signature: str = "serving_default",
        tag: str = "serve",
        **options: Unpack[ModelKeywords],
    ) -> Model:
        """A model in TensorFlow's SavedModel format.

        Parameters
        ----------
        path : path-like
            Its folder, or a URL of it that fsspec reads.
        signature : str
            Which of its signatures is called.
        tag : str
            Of the graph that is loaded.
        **options
            See `Model`.

        Raises
        ------
        ModelError, MissingModelError
            If there is no SavedModel at `path`, or no such signature in it; what is there instead is said.
        """
        return cls(SavedModelConnector.of(path, signature, tag), **options)

    @classmethod
    @spelled(MODEL_SPELLING, ModelSpec)
    def from_keras(cls, path_or_model: Any, **options: Unpack[ModelKeywords]) -> Model:
        """A Keras model: a file (``.keras``, ``.h5``) or a live one, which is exported once.

        Raises
        ------
        ModelError, MissingModelError
            If it is nothing that Keras can load.
        """
        return cls(keras_connector(path_or_model), **options)

    @classmethod
    @spelled(HOSTED_SPELLING, ModelSpec, HostedOptions)
    def from_tf_serving(
        cls,
        url: str,
        model: str,
        version: int | None = None,
        label: str | None = None,
        signature_name: str | None = None,
        *,
        transport: Transport = "rest",
        **options: Unpack[HostedKeywords],
    ) -> Model:
        """A model in TensorFlow Serving, or in another server of its protocols.

        Parameters
        ----------
        url : str
            Of the server, for example ``http://models:8501``; for gRPC ``models:8500``, with TLS
            ``grpcs://models:8500``.
        model : str
            The name that the server knows it by.
        version, label : optional
            Of the model. Default: the latest version.
        signature_name : str, optional
            Default: ``serving_default``.
        transport : {"rest", "grpc"}
            gRPC is many times faster.
        **options
            See `Model`, and `xee_tf.models.HostedOptions` for those of servers. The payload format is
            RAW_JSON with plain numbers, or GRPC_TF_TENSORS. Credentials: none.

        Raises
        ------
        OptionError
            If an option cannot be used. Nothing is sent before the model is used.

        Examples
        --------
        >>> Model.from_tf_serving("models:8500", "landcover", transport="grpc", input_tile_size=256)
        <xee_tf.Model TensorFlow Serving grpc://models:8500, model 'landcover'>
          tiles       256 × 256 px
          array dims  those in the shapes of its inputs; others are mapped over
        """
        hosted = parse(HostedOptions, options)
        connector = tf_serving_connector(url, model, version, label, signature_name, transport, hosted)
        return parse(cls, options, connector)

    @classmethod
    @spelled(HOSTED_SPELLING, ModelSpec, HostedOptions)
    def from_vertex_ai(
        cls,
        endpoint: str,
        *,
        base_url: str | None = None,
        route: Route | None = None,
        signature_name: str | None = None,
        model_name: str = "",
        **options: Unpack[HostedKeywords],
    ) -> Model:
        """A model on an endpoint of Vertex AI.

        Parameters
        ----------
        endpoint : str
            ``projects/PROJECT/locations/REGION/endpoints/ID``.
        base_url : str, optional
            Of a dedicated endpoint (``https://`` and its ``dedicatedEndpointDns``) or a private one. Default:
            the address that the endpoints of the region share.
        route : {"predict", "rawPredict", "grpc"}, optional
            Default: gRPC (DirectRawPredict) for the formats of that name, ``rawPredict`` for another
            signature, else ``predict``.
        signature_name : str, optional
            Of the model; ``predict`` knows only the default one.
        model_name : str, optional
            That the model's own server knows it by; for gRPC, where that server wants one.
        **options
            See `Model`, and `xee_tf.models.HostedOptions` for those of servers. The payload format is
            SERIALIZED_TF_TENSORS, as in Earth Engine: the model must be prepared. Credentials: "google".
            The endpoint does not tell what its model gives: say `output_bands`.

        Raises
        ------
        OptionError
            If an option cannot be used. Nothing is sent before the model is used.

        Examples
        --------
        >>> model = Model.fromVertexAi(
        ...     endpoint="projects/forest/locations/us-central1/endpoints/123",
        ...     inputTileSize=[128, 128],
        ...     outputBands={"p": {"type": "float", "dimensions": 1}},
        ... )
        >>> model.connector.address
        'https://us-central1-aiplatform.googleapis.com/v1/projects/forest/locations/us-central1/endpoints/123:predict'
        """
        hosted = parse(HostedOptions, options)
        connector = vertex_ai_connector(endpoint, base_url, route, signature_name, model_name, hosted)
        return parse(cls, options, connector)

    @classmethod
    @spelled(HOSTED_SPELLING, ModelSpec, HostedOptions)
    def from_ai_platform_predictor(
        cls,
        project_id: str | None = None,
        model_name: str | None = None,
        version: str | None = None,
        region: str = "us-central1",
        *,
        base_url: str | None = None,
        **options: Unpack[HostedKeywords],
    ) -> Model:
        """A model behind the addresses of AI Platform, which Google discontinued on January 31, 2025.

        Parameters
        ----------
        project_id, model_name : str
        version : str, optional
        region : str
            Not "global".
        base_url : str
            Of a server with such addresses: Google's own answers no predictions any more.
        **options
            See `Model`, and `xee_tf.models.HostedOptions` for those of servers. The payload format is
            SERIALIZED_TF_TENSORS. Credentials: none.

        Raises
        ------
        OptionError
            If an option cannot be used, or `base_url` is not said.
        """
        hosted = parse(HostedOptions, options)
        connector = ai_platform_connector(project_id, model_name, version, region, base_url, hosted)
        return parse(cls, options, connector)

    @classmethod
    @spelled(MODEL_SPELLING, ModelSpec)
    def from_function(
        cls, function: Callable[..., Any], *, named: bool = False, **options: Unpack[ModelKeywords]
    ) -> Model:
        """A Python function, or anything that can be called, as a model.

        Parameters
        ----------
        function : callable
            Takes a batch of tiles, an array ``(n, height, width, channels)`` of all bands, and returns such
            an array or ``{name: array}``. With ``array_dims=("time",)`` it takes
            ``(n, height, width, time, channels)``; without it, each step of a dimension such as time is a
            call of its own, since a function does not tell what it takes. For a table, it takes
            ``(n, columns)``. It must be picklable by cloudpickle and safe to call from several threads.
            What it makes for itself, lazily and outside of its pickle, is kept: each process has one copy.
            It is taken as it is now; what globals and classes of the script become later does not count.
        named : bool
            The function takes ``{name: array}`` of bands and properties instead.
        **options
            See `Model`. A function does not tell what it returns: say `output_bands`.
        """
        return cls(FunctionConnector.of(function, named=named), **options)

    @spelled(PREDICT_SPELLING, PredictOptions)
    def predict_image(
        self, image: xr.Dataset | xr.DataArray, merge: bool = True, **options: Unpack[PredictKeywords]
    ) -> xr.Dataset:
        """Predict every pixel of a raster, tile by tile and lazily.

        Tiles of ``input_tile_size`` go to the model with ``input_overlap_size`` more pixels on every side,
        which are cut off the answer; the last ones of a row or column reach beyond the raster, so that every
        pixel is covered. Nothing is called until the result is computed; then each chunk of the raster is
        loaded once.

        Parameters
        ----------
        image : Dataset or DataArray
            A variable for each band, or variables with a ``band`` dimension. Further dimensions, such as
            time, are mapped over, wherever they stand: each step is predicted by itself, and the result has
            that dimension. Those that the model's ``array_dims`` or ``input_shapes`` name, or that the shapes
            of its own inputs call for, go to the model as a whole, and the result lacks them (see Notes).
        merge : bool
            Give the bands of the image too, as Earth Engine's guide says. False: predictions alone.
        properties : mapping, optional
            Of these, ``input_properties`` are sent with each tile. Default: the attributes of the image.
        batch_size : int, optional
            Tiles in a call of the model. Default: about 8 MiB of them.
        blend : {"crop", "hann"}
            "hann": overlapping answers are not cut off but averaged, with weights that fade out towards their
            edges (our addition). Float bands only.
        skip_masked : bool
            Do not send tiles in which no pixel counts; their result is masked in any case.
        augment : {"d4"}, optional
            Predict each tile in the eight positions of a square, and give the mean and, in bands with the
            ending "_spread", the standard deviation (our addition). Float bands only.
        resampling : {"nearest", "bilinear"}
            How pixels come to the model's projection and back, with ``fix_input_proj``.
        output_grid : {"image", "model"}
            With ``fix_input_proj``: come back to the grid of the image, or leave predictions on the model's.
        crs, transform : optional
            CRS and affine of the image, where it has none or a wrong one.

        Returns
        -------
        Dataset
            A lazy variable for each output band, ``(*mapped, *array, y, x)``. Where a pixel of any band that
            the model sees is masked (NaN, ``_FillValue``, nodata), the model gets 0 and the result is masked:
            NaN in float bands, ``_FillValue`` in integer bands. That is the largest value of unsigned types
            and the smallest of signed ones (our choice; of 64 bits, 2**53 - 1 and its negative, because the
            nodata of GeoTIFFs is a float64), or another one where it is in the range that the output is
            declared with; the type is a larger one where the range leaves no value. Without a declared range,
            a tile that holds the value where it is not masked fails when it is computed. Where no band of the
            image can be masked, there is no ``_FillValue``. Where ``output_tile_size`` changes the scale, the
            result has a grid of its own, and a pixel is masked if all those that it covers are (our choice).
            The result lies where the image was taken to lie, by `crs` and `transform`, its coordinates or its
            attributes: it has ``spatial_ref``, coordinates in units of the CRS, and the image's names of
            dimensions, which ``.rio`` knows.

        Raises
        ------
        OptionError
            If bands are missing or do not fit, or an option cannot be used.
        GeoreferenceError
            If it cannot be told where the image lies; with ``fix_input_proj`` also if part of the image lies
            outside the model's projection, or the image crosses the edge of that projection.
        ModelError
            If the model cannot be opened. What only calling it can show is raised by computing.

        Notes
        -----
        A model that takes steps gets ``(n, height, width, time, band)``; bands without the dimension are
        repeated at every step. A Keras model or SavedModel tells the shape of its inputs, so that it is known
        which dimensions it takes: ``(None, None, None, 7, 10)`` takes 7 steps of 10 bands. Where its shape
        allows several readings, the call is refused; ``array_dims=("time",)`` or ``array_dims=()`` of the
        model decides. A function tells no shape: without ``array_dims``, each step is predicted by itself.

        Examples
        --------
        >>> import numpy as np
        >>> y, x = [45.0, 15.0], [500015.0, 500045.0]
        >>> scene = xr.Dataset(
        ...     {
        ...         "B4": (("y", "x"), [[3.0, 4.0], [np.nan, 6.0]]),
        ...         "B3": (("y", "x"), [[1.0, 1.0], [1.0, 2.0]]),
        ...     },
        ...     {"y": y, "x": x},
        ... ).rio.write_crs("EPSG:32633")
        >>> model = Model.from_function(
        ...     lambda pixels: (pixels[..., 0] - pixels[..., 1]) / (1e-9 + pixels[..., 0] + pixels[..., 1]),
        ...     input_tile_size=256,
        ...     output_bands=["ndvi"],
        ... )
        >>> model.predict_image(scene).ndvi.values.round(2)
        array([[0.5, 0.6],
               [nan, 0.5]], dtype=float32)
        """
        return predict_image(self, image, parse(PredictOptions, options), merge=merge).dataset

    @spelled(PREDICT_SPELLING)
    def predict_properties(self, table: Table, *, batch_size: int | None = None) -> Any:
        """Add predictions to a table.

        ``input_properties`` (or ``inputs``) say which columns the model sees, ``output_properties`` what it
        gives; of either, what the model tells need not be said.

        Parameters
        ----------
        table : DataFrame, GeoDataFrame, Dask DataFrame or Dataset with one dimension of rows
            Columns of numbers, booleans, strings, or arrays of one shape. Missing numbers are NaN, missing
            strings empty. A geometry is never sent.
        batch_size : int, optional
            Rows in a call. Default: about 8 MiB of them.

        Returns
        -------
        of the kind of `table`
            With a column for each output; those of arrays hold an array in each row (of a Dataset: have
            further dimensions). Lazy where `table` is.

        Raises
        ------
        OptionError
            If columns are missing or do not fit the model, or a column of an output's name is there already.
        PredictionError
            If the model refuses the rows, or answers with something other than declared.

        Examples
        --------
        >>> import pandas as pd
        >>> ratio = Model.from_function(
        ...     lambda rows: rows[:, 0] / rows[:, 1],
        ...     input_properties=["nir", "red"],
        ...     output_properties=["ratio"],
        ... )
        >>> ratio.predict_properties(pd.DataFrame({"red": [0.1, 0.2], "nir": [0.4, 0.4]}))
           red  nir  ratio
        0  0.1  0.4    4.0
        1  0.2  0.4    2.0
        """
        return predict_properties(self, table, batch_size=batch_size)

    def stats(self) -> PredictionStats:
        """What was asked of a model on a server so far, by this process and the current Dask cluster.

        Raises
        ------
        OptionError
            If the model is on no server.

        Examples
        --------
        >>> Model.from_tf_serving("http://models:8501", "landcover").stats().requests
        0
        """
        if not isinstance(self.connector, RemoteConnector):
            raise OptionError(f"Only models on servers keep statistics; this is {self.connector}.")
        return collect_stats(self.connector)

    # As Earth Engine spells them.
    fromVertexAi = from_vertex_ai  # noqa: N815
    fromAiPlatformPredictor = from_ai_platform_predictor  # noqa: N815
    predictImage = predict_image  # noqa: N815
    predictProperties = predict_properties  # noqa: N815

    def _summary(self) -> Summary:
        return Summary("Model", str(self.connector), spec_rows(self))
