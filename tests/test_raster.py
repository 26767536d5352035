"""Painting polygons on a grid."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from climatestream.raster import paint

SQUARE = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0], [0.0, 0.0]])
AXIS = np.arange(-1.0, 9.0)


def test_polygons_that_share_an_edge_share_no_point_and_lose_none() -> None:
    """Also where grid points lie on the edges and corners."""
    rings = [SQUARE + np.array(corner) for corner in ((0, 0), (4, 0), (0, 4), (4, 4))]
    each = np.array([paint([ring], [1], AXIS, AXIS) for ring in rings])
    assert each.sum(axis=0).max() == 1
    assert each.sum() == 8 * 8
    together = paint(rings, [1, 2, 3, 4], AXIS, AXIS)
    assert (together == np.tensordot([1, 2, 3, 4], each, axes=1)).all()


@pytest.mark.parametrize("direction", [1, -1])
def test_hole_is_outside_whatever_its_direction(direction: int) -> None:
    hole = (SQUARE / 2 + 1.5)[::direction]
    painted = paint([SQUARE, hole], [7, 7], AXIS, AXIS)
    assert (painted == 7).sum() == 16 - 4
    assert painted[3, 3] == painted[4, 4] == 0


def test_painted_is_what_shapely_contains() -> None:
    random = np.random.default_rng(1)
    latitude, longitude = random.uniform(-60, 60, 150), random.uniform(-180, 360, 170)
    east, north = np.meshgrid((longitude + 180) % 360 - 180, latitude)
    for _ in range(20):
        angle = np.sort(random.uniform(0, 2 * np.pi, 40))
        reach = random.uniform(5, 50, 40)
        corners = np.stack([reach * np.cos(angle) * 3, reach * np.sin(angle)], axis=1)
        ring = np.concatenate([corners, corners[:1]])
        polygon = shapely.Polygon(ring)
        assert polygon.is_valid
        painted = paint([ring], [3], latitude, longitude)
        assert (painted == 3 * shapely.contains_xy(polygon, east, north)).all()


def test_nothing_paints_nothing() -> None:
    assert not paint([], [], AXIS, AXIS).any()
    assert paint([SQUARE], [1], AXIS, np.array([])).shape == (10, 0)
