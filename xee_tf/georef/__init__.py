"""Georeferencing of xarray objects: CRS, affine transform and spatial dimensions."""

from xee_tf.georef.bands import add_bands, image_dataset, plane_array, require_image, whole_image
from xee_tf.georef.class_maps import class_map
from xee_tf.georef.conventions import (
    GRID_MAPPING,
    Raster,
    grid_mappings,
    is_grid_mapping,
    name_dims,
    raster_variables,
    spatial_dims,
)
from xee_tf.georef.coordinates import (
    Points,
    apply_affine,
    bounds,
    corner_distance,
    pixels_between,
    window_of,
)
from xee_tf.georef.crs import (
    PointTransform,
    crs_name,
    crs_option,
    crs_text,
    describe_crs,
    point_transformer,
    read_crs,
    same_crs,
)
from xee_tf.georef.find import read_affine
from xee_tf.georef.longitudes import (
    edges_of_projection,
    nearest_turn,
    pixels_of_points,
    unwrap_outline,
    wrap_longitude,
)
from xee_tf.georef.masks import band_nodata, can_mask
from xee_tf.georef.polygons import polygons_in_pixels
from xee_tf.georef.reference import GeoRef, GridLike, grid_mapping, read_georef, same_grid, write_georef
from xee_tf.georef.region import region_window
from xee_tf.georef.summary import bands_text, grid_picture, grid_rows, per_pixel, selected_rows
from xee_tf.georef.units import full_turn
from xee_tf.georef.warping import BlockWarp, block_warp
from xee_tf.georef.zarr_conventions import Conventions, add_conventions, check_conventions

__all__ = [
    "GRID_MAPPING",
    "BlockWarp",
    "Conventions",
    "GeoRef",
    "GridLike",
    "PointTransform",
    "Points",
    "Raster",
    "add_bands",
    "add_conventions",
    "apply_affine",
    "band_nodata",
    "bands_text",
    "block_warp",
    "bounds",
    "can_mask",
    "check_conventions",
    "class_map",
    "corner_distance",
    "crs_name",
    "crs_option",
    "crs_text",
    "describe_crs",
    "edges_of_projection",
    "full_turn",
    "grid_mapping",
    "grid_mappings",
    "grid_picture",
    "grid_rows",
    "image_dataset",
    "is_grid_mapping",
    "name_dims",
    "nearest_turn",
    "per_pixel",
    "pixels_between",
    "pixels_of_points",
    "plane_array",
    "point_transformer",
    "polygons_in_pixels",
    "raster_variables",
    "read_affine",
    "read_crs",
    "read_georef",
    "region_window",
    "require_image",
    "same_crs",
    "same_grid",
    "selected_rows",
    "spatial_dims",
    "unwrap_outline",
    "whole_image",
    "window_of",
    "wrap_longitude",
    "write_georef",
]
