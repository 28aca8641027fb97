"""A model in Earth Engine's terms: where it is, what it wants and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Unpack

from xee_tf.connector import Connector
from xee_tf.errors import OptionError
from xee_tf.geometry import Size
from xee_tf.models.hosted import HOSTED_SPELLING, HostedOptions
from xee_tf.models.options import (
    MODEL_SPELLING,
    PREDICT_SPELLING,
    Declared,
    ModelOptions,
    PredictOptions,
    read_options,
)
from xee_tf.models.projection import Projection
from xee_tf.options import spelled
from xee_tf.storage import PathLike

if TYPE_CHECKING:
    import xarray as xr

    from xee_tf.remote.statistics import PredictionStats
    from xee_tf.remote.tf_serving import Transport
    from xee_tf.remote.vertex_ai import Route
    from xee_tf.tables.sources import Table

__all__ = ["Model"]

_NONE = Size(x=0, y=0)


@dataclass(frozen=True, init=False)
class Model:
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

    connector: Connector
    inputs: Mapping[str, str] | None = None
    input_name: str | None = None
    bands: tuple[str, ...] | None = None
    input_properties: tuple[str, ...] = ()
    input_type_override: Mapping[str, Declared] | None = None
    input_shapes: Mapping[str, tuple[int, ...]] | None = None
    array_dims: tuple[str, ...] | None = None
    proj: Projection | None = None
    fix_input_proj: bool = False
    input_tile_size: Size | None = None
    input_overlap_size: Size = _NONE
    output_tile_size: Size | None = None
    output_bands: tuple[Declared, ...] | None = None
    output_properties: tuple[Declared, ...] | None = None
    output_multiplier: float = 1.0

    def __init__(self, connector: Connector, **options: Unpack[ModelOptions]) -> None:
        if not all(callable(getattr(connector, name, None)) for name in ("open", "signature")):
            raise OptionError(
                f"connector must be a Connector, the way to a model; got {connector!r}. "
                "Model.from_function takes a function, Model.from_keras a Keras model and "
                "Model.from_saved_model the folder of a SavedModel."
            )
        given = read_options(options)
        for field in fields(self):  # frozen: no plain assignment
            value = connector if field.name == "connector" else given.get(field.name, field.default)
            object.__setattr__(self, field.name, value)
        if self.inputs is not None and (self.bands is not None or self.input_name is not None):
            raise OptionError(
                "inputs says already which band goes to which input of the model, so that bands and "
                "input_name cannot be given beside it: bands of one input are stacked in the order of "
                "inputs."
            )

    @classmethod
    @spelled(MODEL_SPELLING, further=ModelOptions.__annotations__)
    def from_connector(cls, connector: Connector, **options: Unpack[ModelOptions]) -> Model:
        """A model behind any connector; see `Model` for the options."""
        return cls(connector=connector, **options)

    @classmethod
    @spelled(MODEL_SPELLING, further=ModelOptions.__annotations__)
    def from_saved_model(
        cls,
        path: PathLike,
        *,
        signature: str = "serving_default",
        tag: str = "serve",
        **options: Unpack[ModelOptions],
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
        from xee_tf.models.saved_model import SavedModelConnector

        return cls(SavedModelConnector.of(path, signature, tag), **options)

    @classmethod
    @spelled(MODEL_SPELLING, further=ModelOptions.__annotations__)
    def from_keras(cls, path_or_model: Any, **options: Unpack[ModelOptions]) -> Model:
        """A Keras model: a file (``.keras``, ``.h5``) or a live one, which is exported once.

        Raises
        ------
        ModelError, MissingModelError
            If it is nothing that Keras can load.
        """
        from xee_tf.models.keras import keras_connector

        return cls(keras_connector(path_or_model), **options)

    @classmethod
    @spelled(HOSTED_SPELLING, further=HostedOptions.__annotations__)
    def from_tf_serving(
        cls,
        url: str,
        model: str,
        version: int | None = None,
        label: str | None = None,
        signature_name: str | None = None,
        *,
        transport: Transport = "rest",
        **options: Unpack[HostedOptions],
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
            See `Model`, and `xee_tf.models.hosted.HostedOptions` for those of servers. The payload format is
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
        from xee_tf.models.hosted import tf_serving_connector

        connector, rest = tf_serving_connector(url, model, version, label, signature_name, transport, options)
        return cls(connector, **rest)

    @classmethod
    @spelled(HOSTED_SPELLING, further=HostedOptions.__annotations__)
    def from_vertex_ai(
        cls,
        endpoint: str,
        *,
        base_url: str | None = None,
        route: Route | None = None,
        signature_name: str | None = None,
        model_name: str = "",
        **options: Unpack[HostedOptions],
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
            See `Model`, and `xee_tf.models.hosted.HostedOptions` for those of servers. The payload format is
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
        from xee_tf.models.hosted import vertex_ai_connector

        connector, rest = vertex_ai_connector(endpoint, base_url, route, signature_name, model_name, options)
        return cls(connector, **rest)

    @classmethod
    @spelled(HOSTED_SPELLING, further=HostedOptions.__annotations__)
    def from_ai_platform_predictor(
        cls,
        project_id: str | None = None,
        model_name: str | None = None,
        version: str | None = None,
        region: str = "us-central1",
        *,
        base_url: str | None = None,
        **options: Unpack[HostedOptions],
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
            See `Model`, and `xee_tf.models.hosted.HostedOptions` for those of servers. The payload format is
            SERIALIZED_TF_TENSORS. Credentials: none.

        Raises
        ------
        OptionError
            If an option cannot be used, or `base_url` is not said.
        """
        from xee_tf.models.hosted import ai_platform_connector

        connector, rest = ai_platform_connector(project_id, model_name, version, region, base_url, options)
        return cls(connector, **rest)

    @classmethod
    @spelled(MODEL_SPELLING, further=ModelOptions.__annotations__)
    def from_function(
        cls, function: Callable[..., Any], *, named: bool = False, **options: Unpack[ModelOptions]
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
        from xee_tf.models.function import FunctionConnector

        return cls(FunctionConnector.of(function, named=named), **options)

    def predict_image(self, image: Any, merge: bool = True, **options: Unpack[PredictOptions]) -> xr.Dataset:
        """Predict every pixel of a raster, tile by tile and lazily; see `xee_tf.predict.image.predict_image`.

        Parameters
        ----------
        image : Dataset or DataArray
            A variable for each band, or variables with a ``band`` dimension. Other dimensions beside y and x
            are mapped over, unless `array_dims`, `input_shapes` or the shapes of the model's inputs call for
            them.
        merge : bool
            Give the bands of the image too.
        **options
            ``batch_size``, ``blend="hann"``, ``augment="d4"``, ``skip_masked``, ``properties``,
            ``resampling``, ``output_grid``, ``crs``, ``transform``.

        Returns
        -------
        Dataset
            Lazy, on the grid of the image.
        """
        from xee_tf.predict.image import predict_image

        found: xr.Dataset = predict_image(self, image, merge=merge, **options)
        return found

    @spelled(PREDICT_SPELLING)
    def predict_properties(self, table: Table, *, batch_size: int | None = None) -> Any:
        """Predict from the rows of a table; see `xee_tf.predict.properties.predict_properties`."""
        from xee_tf.predict.properties import predict_properties

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
        from xee_tf.remote.connector import RemoteConnector
        from xee_tf.remote.statistics import stats_everywhere

        if not isinstance(self.connector, RemoteConnector):
            raise OptionError(f"Only models on servers keep statistics; this is {self.connector}.")
        return stats_everywhere(self.connector)

    # As Earth Engine spells them.
    fromVertexAi = from_vertex_ai  # noqa: N815
    fromAiPlatformPredictor = from_ai_platform_predictor  # noqa: N815
    predictImage = predict_image  # noqa: N815
    predictProperties = predict_properties  # noqa: N815

    def __repr__(self) -> str:
        from xee_tf.display.model import model_text

        return model_text(self)

    def _repr_html_(self) -> str:
        from xee_tf.display.model import model_html

        return model_html(self)
