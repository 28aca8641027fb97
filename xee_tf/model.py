"""``Model``: a model specification with constructors and prediction methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Unpack, cast

import numpy as np
import xarray as xr

from xee_tf.connector import Connector
from xee_tf.display import Summarized, Summary
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
    describe_model,
    keras_connector,
    onnx_connector,
    read_mlm,
    spec_rows,
    tf_serving_connector,
    vertex_ai_connector,
)
from xee_tf.options import document_options, parse, spelled
from xee_tf.predict import (
    PREDICT_SPELLING,
    PredictKeywords,
    PredictOptions,
    PredictPlan,
    plan_prediction,
    predict_image,
    predict_properties,
)
from xee_tf.remote import PredictionStats, RemoteConnector, Route, collect_stats
from xee_tf.storage import PathLike
from xee_tf.tables import Table

__all__ = ["Model"]


@document_options(ModelSpec)
class Model(Summarized, ModelSpec):
    """A model, and the conversion of rasters and tables to its inputs, like ``ee.Model`` in Earth Engine.

    Create a model with `from_saved_model`, `from_keras`, `from_onnx`, `from_mlm`, `from_function`,
    `from_tf_serving`, `from_vertex_ai` or `from_ai_platform_predictor`, or with `from_connector` for a
    custom connector. All of them accept the options below as keywords, in this spelling or in Earth Engine's
    (``inputTileSize``). Sizes, dtypes and names default to the model's own signature. The model is loaded
    when it is first used. `dataclasses.replace` returns a copy with other options.

    Parameters
    ----------
    connector : Connector
        Where the model is and how it is called.
    **options
        See `ModelSpec`.

    Raises
    ------
    OptionError
        If an option is not valid.

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
        """Create a model from a connector.

        Parameters
        ----------
        connector : Connector
            An instance of your own subclass of `xee_tf.Connector`.
        **options
            See `Model`.

        Returns
        -------
        Model
            The model.

        Raises
        ------
        OptionError
            If an option is not valid.

        Examples
        --------
        >>> from xee_tf.models import FunctionConnector
        >>> Model.from_connector(FunctionConnector.of(max), output_bands=["largest"])
        <xee_tf.Model function max>
          array dims  none, all are mapped over
          outputs     largest
        """
        return cls(connector=connector, **options)

    @classmethod
    @spelled(MODEL_SPELLING, ModelSpec)
    def from_saved_model(
        cls,
        path: PathLike,
        *,
        signature: str = "serving_default",
        tag: str = "serve",
        storage_options: Mapping[str, Any] | None = None,
        **options: Unpack[ModelKeywords],
    ) -> Model:
        """Create a model from a folder in TensorFlow's SavedModel format.

        Parameters
        ----------
        path : path-like
            The folder, or its URL, such as ``s3://bucket/model``.
        signature : str, default "serving_default"
            The signature that is called.
        tag : str, default "serve"
            The tag of the graph that is loaded.
        storage_options : mapping of str to object, optional
            Options for fsspec.
        **options
            See `Model`.

        Returns
        -------
        Model
            The model. It is loaded when it is first used.

        Raises
        ------
        OptionError
            If an option is not valid.
        MissingModelError
            If `path` does not exist, when the model is first used.
        ModelError
            If `path` is not a SavedModel or does not have the signature, when the model is first used; or if
            the files of a URL are replaced between the creation of a lazy prediction and its computation.
        StorageError
            If a URL cannot be read, when the model is first used.

        Notes
        -----
        Each process that loads the model copies the files of a URL to a private temporary folder, which is
        removed when the model is loaded. `predict_to_zarr` also reads them where it is called, and so does
        every check of a web server that sends neither times nor ETags. All processes use the version that
        exists when the prediction is created; a process keeps the version that it loaded last. A local model
        that is replaced later is loaded again.

        Examples
        --------
        >>> Model.from_saved_model("/models/landcover", input_tile_size=256)
        <xee_tf.Model SavedModel /models/landcover>
          signature   unknown until the model is loaded
          tiles       256 × 256 px
          array dims  those in the shapes of its inputs; others are mapped over
        """
        return cls(SavedModelConnector.of(path, signature, tag, storage_options), **options)

    @classmethod
    @spelled(MODEL_SPELLING, ModelSpec)
    def from_keras(
        cls,
        path_or_model: Any,
        *,
        storage_options: Mapping[str, Any] | None = None,
        **options: Unpack[ModelKeywords],
    ) -> Model:
        """Create a model from a Keras file or a Keras model in memory.

        Parameters
        ----------
        path_or_model : path-like or keras.Model
            A ``.keras`` or ``.h5`` file, its URL, such as ``s3://bucket/model.keras``, or a model in memory,
            which is exported once, now.
        storage_options : mapping of str to object, optional
            Options for fsspec.
        **options
            See `Model`.

        Returns
        -------
        Model
            The model.

        Raises
        ------
        OptionError
            If an option is not valid.
        MissingModelError
            If the file does not exist, when the model is first used.
        ModelError
            If the model in memory cannot be exported; if Keras cannot load the file, when the model is first
            used; or if the file of a URL is replaced between the creation of a lazy prediction and its
            computation.
        StorageError
            If a URL cannot be read, when the model is first used.

        Notes
        -----
        Files of URLs are copied as by `from_saved_model`. A model in memory is part of the graph of each
        prediction, which holds it once, and each process loads it once. To compute many predictions on a
        cluster, save a large model to a bucket and pass its URL.

        Examples
        --------
        >>> Model.from_keras("/models/landcover.keras", input_tile_size=256)
        <xee_tf.Model Keras model /models/landcover.keras>
          signature   unknown until the model is loaded
          tiles       256 × 256 px
          array dims  those in the shapes of its inputs; others are mapped over
        """
        return cls(keras_connector(path_or_model, storage_options), **options)

    @classmethod
    @spelled(MODEL_SPELLING, ModelSpec)
    def from_onnx(
        cls,
        path_or_model: Any,
        *,
        channels: str | None = None,
        threads: int = 1,
        providers: str | Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **options: Unpack[ModelKeywords],
    ) -> Model:
        """Create a model from an ONNX file, as exported from PyTorch, scikit-learn and other libraries.

        Parameters
        ----------
        path_or_model : path-like, bytes or onnx.ModelProto
            An ``.onnx`` file or its URL, such as ``s3://bucket/model.onnx``; a folder with one such file and
            the files of its weights; or a model in memory.
        channels : {"first", "last"} or str, optional
            Where the inputs and outputs have their channels: ``(n, band, height, width)``, as usual in
            PyTorch, or ``(n, height, width, band)``, as in TensorFlow. For time series, the order of all
            axes: ``"NTCHW"`` for ``(n, time, band, height, width)``, or ``"NCTHW"`` (the same as "first") for
            ``(n, band, time, height, width)``. With ``unit="pixel"``, "first" is ``(n, band, time)``, as in
            PyTorch's Conv1d, and "last" ``(n, time, band)``. Default: found by the shapes of the inputs; an
            error if several orders are possible.
        threads : int, default 1
            Number of threads that compute one batch. Dask already computes several batches at once.
        providers : str or sequence, optional
            Execution providers of onnxruntime in order of preference, such as ``["CUDAExecutionProvider"]``,
            each optionally as a pair of its name and options. The workers need them. Default: the CPU.
        storage_options : mapping of str to object, optional
            Options for fsspec.
        **options
            See `Model`. In shapes and in `array_dims`, bands are last, whatever the order of the model.

        Returns
        -------
        Model
            The model. It is loaded when it is first used.

        Raises
        ------
        OptionError
            If an option is not valid.
        MissingModelError
            If the file does not exist, when the model is first used.
        ModelError
            If onnxruntime cannot load the file, it has inputs or outputs that are not tensors, or the
            position of its channels is ambiguous, when the model is first used; or if the file of a URL is
            replaced between the creation of a lazy prediction and its computation.
        StorageError
            If a URL cannot be read, when the model is first used.

        Notes
        -----
        Files of URLs are copied as by `from_saved_model`. A model in memory is part of the graph of each
        prediction, which holds it once.

        A PyTorch model is exported like this. Models converted from PyTorch are tested with this package, the
        export itself is not. Axes with names take batches and tiles of any size::

            import torch

            n, y, x = (torch.export.Dim(name) for name in "nyx")
            torch.onnx.export(
                network.eval(),
                (torch.zeros(2, 6, 256, 256),),  # as in training: (n, band, height, width)
                "landcover.onnx",
                input_names=["image"],
                output_names=["classes"],
                dynamic_shapes=({0: n, 2: y, 3: x},),
                external_data=False,  # a single file
                dynamo=True,
            )

        With ``dynamo=False``, pass ``dynamic_axes={"image": axes, "classes": axes}`` instead, where ``axes``
        is ``{0: "n", 2: "y", 3: "x"}``.

        A classifier of scikit-learn is converted by
        ``skl2onnx.to_onnx(classifier, X[:1].astype("float32"), options={"zipmap": False})``, and one of
        XGBoost or LightGBM by onnxmltools. It takes rows, ``(n, column)``, or with ``unit="pixel"`` the
        pixels of an image, and returns ``label`` and ``probabilities``. ``output_bands=["forest", "water"]``
        names the probabilities, and ``output_bands={"class": {"argmax": ["forest", "water"]}}`` makes a map.

        Examples
        --------
        >>> Model.from_onnx("/models/landcover.onnx", input_tile_size=256)
        <xee_tf.Model ONNX model /models/landcover.onnx>
          signature   unknown until the model is loaded
          tiles       256 × 256 px
          array dims  those in the shapes of its inputs; others are mapped over

        A model that comes with onnxruntime takes three tiles of 4 rows and 5 columns at once:

        >>> import numpy as np
        >>> from onnxruntime.datasets import get_example
        >>> axes = {"y": 30 * np.arange(8.0)[::-1], "x": 30 * np.arange(10.0)}
        >>> scene = xr.Dataset({"B4": (("y", "x"), np.eye(8, 10))}, axes).rio.write_crs("EPSG:32633")
        >>> model = Model.from_onnx(
        ...     get_example("sigmoid.onnx"),
        ...     input_type_override={"B4": "float32"},
        ...     output_bands={"probability": "float32"},
        ... )
        >>> model.predict_image(scene, merge=False)["probability"].values[:2, :3].round(2)
        array([[0.73, 0.5 , 0.5 ],
               [0.5 , 0.73, 0.5 ]], dtype=float32)
        """
        connector = onnx_connector(
            path_or_model,
            storage_options,
            channels=channels,
            threads=threads,
            providers=providers,
            pixels=options.get("unit") == "pixel",
        )
        return cls(connector, **options)

    @classmethod
    @spelled(MODEL_SPELLING, ModelSpec)
    def from_mlm(
        cls,
        item: Any,
        *,
        asset: str | None = None,
        path: PathLike | None = None,
        preprocessed: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        **options: Unpack[ModelKeywords],
    ) -> Model:
        """Create a model from a STAC item with the Machine Learning Model extension (MLM).

        Parameters
        ----------
        item : path-like, mapping or pystac.Item
            The item: a JSON file, its URL, its content, or an object with the method ``to_dict``.
        asset : str, optional
            The key of the asset, if several have the role ``mlm:model``.
        path : path-like, optional
            The file of the model, instead of that of the item, such as a PyTorch model exported to ONNX.
        preprocessed : bool, default False
            The bands of the image already are what the model takes: ``value_scaling``, ``resize_type`` and
            functions for preprocessing in the item are ignored.
        storage_options : mapping of str to object, optional
            Options for fsspec.
        **options
            See `Model`. They override those of the item.

        Returns
        -------
        Model
            A model of `from_onnx`, `from_keras` or `from_saved_model`. It is loaded when it is first used.

        Raises
        ------
        OptionError
            If an option is not valid.
        ModelError
            If the item does not describe a model in one of these formats, or requires preprocessing that is
            not applied.
        MissingModelError
            If the file of the item does not exist.
        StorageError
            If the file of the item cannot be read.

        Notes
        -----
        These fields are used:

        =================================  ===================================================================
        field                              option
        =================================  ===================================================================
        ``mlm:input``: bands               `bands`, or `inputs` if there are several; `input_properties` for a
                                           model of rows, without ``height`` and ``width``, unless
                                           ``unit="pixel"``
        shape                              `input_tile_size`, which is the size less the overlap
        dim_order                          the order of axes of an ONNX file
        value_scaling                      `normalize`: min-max, z-score, offset and scale
        ``mlm:output``: name, data_type    `output_bands`, or `output_properties` for a model of rows
        bands, ``classification:classes``  names of output bands, if a single output has such channels;
                                           otherwise the range of an integer output
        =================================  ===================================================================

        Examples
        --------
        >>> axes = ["batch", "channel", "height", "width"]
        >>> item = {
        ...     "id": "crops",
        ...     "properties": {
        ...         "mlm:input": [
        ...             {
        ...                 "name": "image",
        ...                 "bands": ["B4", "B3"],
        ...                 "input": {"shape": [-1, 2, 64, 64], "dim_order": axes, "data_type": "float32"},
        ...                 "value_scaling": [{"type": "z-score", "mean": 1200, "stddev": 400}],
        ...             }
        ...         ],
        ...         "mlm:output": [
        ...             {
        ...                 "name": "crops",
        ...                 "result": {"shape": [-1, 2, 64, 64], "dim_order": axes, "data_type": "float32"},
        ...                 "classification:classes": [
        ...                     {"value": 0, "name": "maize"},
        ...                     {"value": 1, "name": "wheat"},
        ...                 ],
        ...             }
        ...         ],
        ...     },
        ...     "assets": {"model": {"href": "/models/crops.onnx", "roles": ["mlm:model"]}},
        ... }
        >>> Model.from_mlm(item, input_overlap_size=8)
        <xee_tf.Model ONNX model /models/crops.onnx>
          signature   unknown until the model is loaded
          tiles       48 × 48 px with 8 × 8 px overlap along each edge
          inputs      B4, B3
          array dims  those in the shapes of its inputs; others are mapped over
          normalized  B4, B3
          outputs     maize: float32, wheat: float32
        """
        given = {name: value for name, value in options.items() if value is not None}
        found = read_mlm(
            item,
            given,
            asset=asset,
            path=path,
            preprocessed=preprocessed,
            storage_options=storage_options,
        )
        described = dict(found.options)
        if "inputs" in given:
            described.pop("bands", None)
        elif "bands" in given:
            described.pop("inputs", None)
        merged: Any = described | given
        if found.kind == "onnx":
            channels = found.order if "C" in found.order else None
            return cls.from_onnx(found.path, channels=channels, storage_options=storage_options, **merged)
        load = cls.from_keras if found.kind == "keras" else cls.from_saved_model
        return load(found.path, storage_options=storage_options, **merged)

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
        """Create a model served by TensorFlow Serving or another server with the same protocols.

        Parameters
        ----------
        url : str
            The URL of the server, such as ``http://models:8501``. For gRPC, ``models:8500`` or, with TLS,
            ``grpcs://models:8500``.
        model : str
            The name of the model on the server.
        version : int, optional
            The version of the model. Default: the latest.
        label : str, optional
            The label of a version, instead of `version`.
        signature_name : str, optional
            The signature that is called. Default: ``serving_default``.
        transport : {"rest", "grpc"}, default "rest"
            The protocol. gRPC is many times faster.
        **options
            See `Model` and `xee_tf.models.HostedOptions`.

        Returns
        -------
        Model
            The model. No request is sent before it is used.

        Raises
        ------
        OptionError
            If an option is not valid.

        Notes
        -----
        The default payload format is RAW_JSON with plain numbers for REST and GRPC_TF_TENSORS for gRPC. No
        credentials are sent by default.

        Examples
        --------
        >>> Model.from_tf_serving("models:8500", "landcover", transport="grpc", input_tile_size=256)
        <xee_tf.Model TensorFlow Serving grpc://models:8500, model 'landcover'>
          signature   unknown until the server is asked
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
        """Create a model deployed to an endpoint of Vertex AI.

        Parameters
        ----------
        endpoint : str
            The resource name, ``projects/PROJECT/locations/REGION/endpoints/ID``.
        base_url : str, optional
            The URL of a dedicated endpoint (``https://`` and its ``dedicatedEndpointDns``) or of a private
            one. Default: the shared URL of the region.
        route : {"predict", "rawPredict", "grpc"}, optional
            The method that is called. Default: gRPC (DirectRawPredict) for the payload formats with that
            name, ``rawPredict`` for a signature other than the default, otherwise ``predict``.
        signature_name : str, optional
            The signature that is called. ``predict`` only supports the default one.
        model_name : str, optional
            The name of the model on its own server, for gRPC with a server that requires it.
        **options
            See `Model` and `xee_tf.models.HostedOptions`.

        Returns
        -------
        Model
            The model. No request is sent before it is used.

        Raises
        ------
        OptionError
            If an option is not valid.

        Notes
        -----
        The default payload format is SERIALIZED_TF_TENSORS, as in Earth Engine, which requires a model
        prepared with `xee_tf.prepare_model`. The default credentials are ``"google"``. An endpoint does not
        provide the signature of its model: `output_bands` or `output_properties` is required.

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
        """Create a model on a server with the API of AI Platform Prediction.

        Google discontinued AI Platform Prediction on January 31, 2025.

        Parameters
        ----------
        project_id : str
            The project of the model.
        model_name : str
            The name of the model.
        version : str, optional
            The version of the model. Default: the default version on the server.
        region : str, default "us-central1"
            The region of the model; not "global".
        base_url : str
            The URL of a server with this API, because Google's own server no longer returns predictions.
        **options
            See `Model` and `xee_tf.models.HostedOptions`.

        Returns
        -------
        Model
            The model. No request is sent before it is used.

        Raises
        ------
        OptionError
            If an option is not valid or `base_url` is missing.

        Notes
        -----
        The default payload format is SERIALIZED_TF_TENSORS. No credentials are sent by default.

        Examples
        --------
        >>> model = Model.from_ai_platform_predictor(
        ...     "forest", "landcover", "v2", base_url="http://localhost:8501", output_bands=["p"]
        ... )
        >>> model.connector.address
        'http://localhost:8501/v1/projects/forest/models/landcover/versions/v2:predict'
        """
        hosted = parse(HostedOptions, options)
        connector = ai_platform_connector(project_id, model_name, version, region, base_url, hosted)
        return parse(cls, options, connector)

    @classmethod
    @spelled(MODEL_SPELLING, ModelSpec)
    def from_function(
        cls, function: Callable[..., Any], *, named: bool = False, **options: Unpack[ModelKeywords]
    ) -> Model:
        """Create a model from a Python function or another callable.

        Parameters
        ----------
        function : callable
            A function of a batch of tiles: an array ``(n, height, width, channels)`` of all bands. It returns
            an array ``(n, height, width)`` or ``(n, height, width, channels)``, or a mapping of output names
            to arrays. With ``array_dims=("time",)`` it takes ``(n, height, width, time, channels)``; without
            `array_dims`, each step of a dimension such as time is predicted separately, because a function
            has no signature. With ``unit="pixel"`` it takes the same without height and width, ``(n,
            channels)`` or ``(n, time, channels)``, and returns ``(n,)`` or ``(n, channels)``: for example
            ``forest.predict_proba`` of scikit-learn. For a table, it takes ``(n, columns)`` and returns
            arrays with n rows.
        named : bool, default False
            Whether the function takes a mapping from names of bands and properties to arrays instead.
        **options
            See `Model`.

        Returns
        -------
        Model
            The model.

        Raises
        ------
        OptionError
            If an option is not valid.
        ModelError
            If `function` is not callable or cannot be pickled.

        Notes
        -----
        A function has no signature: `output_bands` or `output_properties` is required.

        The function is pickled by cloudpickle when the model is created: later changes to globals and classes
        of the script have no effect. Several threads may call it at the same time. Objects that it creates
        lazily and excludes from its pickle are kept: each process has one copy.

        Examples
        --------
        >>> Model.from_function(lambda tiles: tiles.max(-1), input_tile_size=256, output_bands=["largest"])
        <xee_tf.Model function <lambda>>
          tiles       256 × 256 px
          array dims  none, all are mapped over
          outputs     largest

        Functions of single pixels get those that are not masked, whatever the chunks of the image:

        >>> import numpy as np
        >>> series = xr.Dataset(
        ...     {"B4": (("time", "y", "x"), [[[3.0, np.nan], [5.0, 6.0]], [[4.0, 4.0], [8.0, 9.0]]])},
        ...     {"y": [45.0, 15.0], "x": [500015.0, 500045.0]},
        ... ).rio.write_crs("EPSG:32633")
        >>> def trend(pixels):
        ...     print("got", pixels.shape)
        ...     return pixels[:, -1, 0] - pixels[:, 0, 0]
        >>> model = Model.from_function(trend, unit="pixel", array_dims="time", output_bands=["trend"])
        >>> model.predict_image(series, merge=False).trend.values
        got (3, 2, 1)
        array([[ 1., nan],
               [ 3.,  3.]], dtype=float32)
        """
        return cls(FunctionConnector.of(function, named=named), **options)

    @spelled(PREDICT_SPELLING, PredictOptions)
    def predict_image(
        self, image: xr.Dataset | xr.DataArray, merge: bool = True, **options: Unpack[PredictKeywords]
    ) -> xr.Dataset:
        """Predict every pixel of a raster lazily, tile by tile or, with ``unit="pixel"``, pixel by pixel.

        Tiles of ``input_tile_size`` are sent to the model with ``input_overlap_size`` more pixels along each
        edge, which are cropped from the predictions. The last tiles of a row or column extend beyond the
        raster, so that every pixel is covered. The model is not called before the result is computed; each
        chunk of the raster is then loaded once.

        Parameters
        ----------
        image : Dataset or DataArray
            A raster with a variable for each band, or variables with a ``band`` dimension. Other dimensions,
            such as time, are mapped over, wherever they are: each step is predicted separately, and the
            result has that dimension. The dimensions in the model's ``array_dims`` or ``input_shapes``, or
            those that the shapes of its own inputs require, go to the model as a whole, and the result does
            not have them (see Notes).
        merge : bool, default True
            Whether to include the bands of the image in the result, as in Earth Engine's guide, or to return
            only the predictions.
        **options
            See `PredictOptions`.

        Returns
        -------
        Dataset
            A lazy variable ``(*mapped, *array, y, x)`` for each output band, and the bands of the image with
            `merge`. The result has ``spatial_ref``, coordinates in units of the CRS and the dimension names
            of the image, which ``.rio`` recognizes. Its location is that of the image, from `crs` and
            `transform`, its coordinates or its attributes.

        Raises
        ------
        OptionError
            If bands are missing or do not fit the model, or an option is not valid.
        GeoreferenceError
            If the location of the image cannot be determined; with ``fix_input_proj`` also if part of the
            image is outside the model's projection, or the image crosses the edge of that projection.
        ModelError
            If the model cannot be opened.
        PredictionError
            If the model fails or returns something other than declared, when the result is computed.

        Notes
        -----
        *Masks.* If a pixel of any band that the model takes is masked (NaN, ``_FillValue``, nodata), the
        model gets 0 and the result is masked: NaN in float bands and ``_FillValue`` in integer bands.
        ``_FillValue`` is the largest value of unsigned types and the smallest value of signed types (for 64
        bits, 2**53 - 1 and its negative, because the nodata value of a GeoTIFF is a float64). If that value
        is within the declared range of the output, another value is used, and a larger type if the range
        includes every value of the type. Without a declared range, a tile with a valid pixel of that value
        raises an error when it is computed. There is no ``_FillValue`` if no band of the image can have
        masked pixels. With ``unit="pixel"``, masked pixels are not sent.

        *Scale.* If ``output_tile_size`` changes the scale, the result has a grid of its own, and a pixel is
        masked if all the pixels that it covers are masked.

        *Dimensions.* A model of time steps takes ``(n, height, width, time, band)``; bands without the
        dimension are repeated at every step. The signature of a Keras model or SavedModel determines the
        dimensions that it takes: ``(None, None, None, 7, 10)`` takes 7 steps of 10 bands. If the signature is
        ambiguous, an error is raised; set the model's ``array_dims=("time",)`` or ``array_dims=()``. A
        function has no signature: without ``array_dims``, each step is predicted separately.

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

    @spelled(PREDICT_SPELLING, PredictOptions)
    def plan(
        self,
        image: xr.Dataset | xr.DataArray,
        *,
        price_per_million_requests: float | None = None,
        **options: Unpack[PredictKeywords],
    ) -> PredictPlan:
        """Plan the prediction of a raster: tiles or pixels, batches, requests, bytes, memory and cost.

        No pixel is read and no tile is sent. A server is only asked for the signature of its model, as
        `predict_image` does. The errors are those of ``predict_image(merge=False)``: the plan describes only
        the predictions.

        Parameters
        ----------
        image : Dataset or DataArray
            The raster, as for `predict_image`.
        price_per_million_requests : float, optional
            Price of a million requests in any currency, for a server that bills by request.
        **options
            See `PredictOptions`.

        Returns
        -------
        PredictPlan
            The plan, with a text for the console and HTML for notebooks.

        Raises
        ------
        OptionError
            If bands are missing or do not fit the model, or an option is not valid.
        GeoreferenceError
            If the location of the image cannot be determined.
        ModelError
            If the model cannot be opened.

        Notes
        -----
        *Exact numbers and upper bounds.* Batches, requests and bytes sent are exact if every tile is sent and
        sizes do not depend on values. They are upper bounds (``plan.exact`` is False) if pixels can be
        masked, because tiles in which all pixels are masked are not sent, unless ``skip_masked=False``, and
        neither are masked pixels with ``unit="pixel"``; and for RAW_JSON and ND_ARRAYS, which send numbers as
        text. Retries are not included. Bytes received are an estimate, from the outputs that are declared or
        in the signature.

        *Memory* is that of the tiles and results. What the model needs for its weights and layers is unknown.

        Examples
        --------
        >>> import numpy as np
        >>> scene = xr.Dataset(
        ...     {"B4": (("y", "x"), np.zeros((600, 500), "uint8"))},
        ...     {"y": 5e6 - 30 * np.arange(600.0), "x": 7e5 + 30 * np.arange(500.0)},
        ... ).rio.write_crs("EPSG:32633")
        >>> model = Model.from_function(
        ...     lambda pixels: pixels[..., 0], input_tile_size=128, input_overlap_size=8, output_bands=["p"]
        ... )
        >>> model.plan(scene)
        <xee_tf.PredictPlan function <lambda>>
          tiles    20 = 5 rows × 4 columns of 128 × 128 px, given to the function with overlap as 144 × 144
          raster   500 × 600 px; EPSG:32633
          padded   12 columns at the right, 40 rows at the bottom
          inputs   pixels: uint8 (?, 144, 144, 1)
          batches  5 of up to 404 tiles
          bytes    405.00 kiB given to the function, about 1.58 MiB returned
          outputs  p: float32
          result   500 × 600 px in chunks of 500 × 600, 1.14 MiB uncompressed
          tasks    ... for 1 source chunk, in 1 row × 1 column of blocks
          memory   ... per task, ... for the whole process; without the model itself, and without the result
        """
        return plan_prediction(
            self,
            image,
            parse(PredictOptions, options),
            price_per_million_requests=price_per_million_requests,
        )

    @spelled(PREDICT_SPELLING)
    def predict_properties(self, table: Table, *, batch_size: int | None = None) -> Any:
        """Add predictions to a table.

        ``input_properties`` or ``inputs`` of the model select the columns that it takes, and
        ``output_properties`` are the columns that are added. Both default to the model's own signature.

        Parameters
        ----------
        table : DataFrame, GeoDataFrame, dask DataFrame or Dataset with one dimension of rows
            Columns of numbers, booleans, strings or arrays of equal shape. Missing numbers are sent as NaN
            and missing strings as empty strings. Geometries are never sent.
        batch_size : int, optional
            Rows per call of the model. Default: about 8 MiB of rows.

        Returns
        -------
        DataFrame, GeoDataFrame, dask DataFrame or Dataset
            The table with a column for each output, lazy if `table` is lazy. A column of arrays contains an
            array in each row; in a Dataset it has further dimensions.

        Raises
        ------
        OptionError
            If columns are missing or do not fit the model, or the table already has a column with the name of
            an output.
        ModelError
            If the model cannot be opened.
        PredictionError
            If the model fails on the rows or returns something other than declared.

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

    def to_mlm(
        self,
        id: str,
        *,
        href: str | None = None,
        tasks: Sequence[str] = ("semantic-segmentation",),
        classes: Mapping[int, str] | Sequence[str] | None = None,
        bbox: Sequence[float] = (-180, -90, 180, 90),
        interval: Sequence[str | date | np.datetime64] = ("1900-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
        properties: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Describe a model in a file as a STAC item with the Machine Learning Model extension (MLM).

        `from_mlm` reads it. Write it next to the model, for example with `json.dump`.

        Parameters
        ----------
        id : str
            The ID of the item, and the name of the model.
        href : str, optional
            The path or URL of the model, which may be relative to the item. Default: that of the model.
        tasks : sequence of str, default ("semantic-segmentation",)
            What the model does, in the terms of the extension, such as ``["regression"]``.
        classes : mapping of int to str or sequence of str, optional
            The names of the classes of the output, by their value or in the order of its channels. Default:
            `output_bands`, if they are the channels of a single output, or the classes of its ``argmax``.
        bbox : sequence of float, optional
            Where the model can be used: west, south, east and north in degrees. West of a box across 180
            degrees is greater than east. Default: everywhere.
        interval : sequence of str, date or numpy.datetime64, optional
            When it can be used: two dates or times, in UTC unless they have a time zone. Default: always.
        properties : mapping of str to object, optional
            Further properties of the item, such as ``{"mlm:architecture": "U-Net"}``.

        Returns
        -------
        dict
            The item, with bands, tile size (with the overlap), `normalize`, and outputs.

        Raises
        ------
        OptionError
            If an option is not valid, the model has no `bands`, or `normalize` lacks one of them.
        ModelError
            If the model is not in a file, or cannot be opened.

        Examples
        --------
        >>> from onnxruntime.datasets import get_example
        >>> model = Model.from_onnx(get_example("sigmoid.onnx"), bands=["B4"], output_bands=["p"])
        >>> item = model.to_mlm("sigmoid", href="sigmoid.onnx", tasks=["regression"])
        >>> item["properties"]["mlm:input"][0]["input"]
        {'shape': [3, 4, 5], 'dim_order': ['batch', 'height', 'width'], 'data_type': 'float32'}
        """
        return describe_model(
            self,
            id,
            href=href,
            tasks=tasks,
            classes=classes,
            bbox=bbox,
            interval=interval,
            properties=properties,
        )

    def stats(self) -> PredictionStats:
        """Return statistics of the requests to a model on a server.

        Returns
        -------
        PredictionStats
            Counts and sizes of the requests of this process and the current Dask cluster so far.

        Raises
        ------
        OptionError
            If the model is not on a server.

        Examples
        --------
        >>> Model.from_tf_serving("http://models:8501", "landcover").stats().requests
        0
        """
        if not isinstance(self.connector, RemoteConnector):
            raise OptionError(f"Only hosted models have statistics; got {self.connector}.")
        return collect_stats(self.connector)

    # Earth Engine's names.
    fromVertexAi = from_vertex_ai  # noqa: N815
    fromAiPlatformPredictor = from_ai_platform_predictor  # noqa: N815
    predictImage = predict_image  # noqa: N815
    predictProperties = predict_properties  # noqa: N815

    def _summary(self) -> Summary:
        return Summary("Model", str(self.connector), spec_rows(self))
