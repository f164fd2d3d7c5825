"""Planar worlds: generated, or imported from a ROS map."""

from .barn_worlds import barn
from .halls import far, hall
from .warehouses import warehouse
from .world import LABELS, World

__all__ = ["LABELS", "World", "barn", "far", "hall", "warehouse"]
