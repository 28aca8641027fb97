"""Types in the signatures and results of the public functions, for annotations in your own code.

Aliases are the types of arguments: ``IfExists`` is ``Literal["error", "overwrite", "resume"]``. Classes are
parts of plans and results, and those that a custom connector implements and uses (see `xee_tf.Connector`).

Examples
--------
>>> import xee_tf
>>> from xee_tf.typing import PathLike
>>> def count_patches(mixer: PathLike) -> int:
...     return xee_tf.Mixer.read(mixer).total_patches
"""

from xee_tf.blocks import BlockLayout
from xee_tf.classes import Classes, Color
from xee_tf.connector import Arrays, Connection, Items, Signature, TensorInfo
from xee_tf.export import BandPlan, ExportOptions, Image, PatchRecords, PatchShards
from xee_tf.geometry import Edge, PatchAxis
from xee_tf.georef import Conventions, Raster
from xee_tf.models import ModelSpec, ModelUnit, PixelType, Projection, Transport
from xee_tf.options import IfExists
from xee_tf.pictures import Batch
from xee_tf.predict import Blend, Resampling
from xee_tf.prepare import NodesLike
from xee_tf.reading import Kind, Margins, RecordFiles, Unit
from xee_tf.records import Feature, FeatureTypes
from xee_tf.remote import Credentials, Route
from xee_tf.sampling import PatchBlock
from xee_tf.sidecars import BandSpec, Exported, ExportedTable, ExportNames, TableColumn
from xee_tf.storage import Location, PathLike
from xee_tf.tables import Geometry, Table
from xee_tf.training import (
    Bands,
    ClassWeight,
    Exports,
    Normalize,
    NormalizeMethod,
    SampleWeight,
    Scales,
    SequenceSpec,
)
from xee_tf.upload import Nodata, OverviewResampling, Predictions

__all__ = [
    "Arrays",
    "BandPlan",
    "BandSpec",
    "Bands",
    "Batch",
    "Blend",
    "BlockLayout",
    "ClassWeight",
    "Classes",
    "Color",
    "Connection",
    "Conventions",
    "Credentials",
    "Edge",
    "ExportNames",
    "ExportOptions",
    "Exported",
    "ExportedTable",
    "Exports",
    "Feature",
    "FeatureTypes",
    "Geometry",
    "IfExists",
    "Image",
    "Items",
    "Kind",
    "Location",
    "Margins",
    "ModelSpec",
    "ModelUnit",
    "Nodata",
    "NodesLike",
    "Normalize",
    "NormalizeMethod",
    "OverviewResampling",
    "PatchAxis",
    "PatchBlock",
    "PatchRecords",
    "PatchShards",
    "PathLike",
    "PixelType",
    "Predictions",
    "Projection",
    "Raster",
    "RecordFiles",
    "Resampling",
    "Route",
    "SampleWeight",
    "Scales",
    "SequenceSpec",
    "Signature",
    "Table",
    "TableColumn",
    "TensorInfo",
    "Transport",
    "Unit",
]
