"""Planar worlds: generated, or imported from a ROS map."""

from .barn_worlds import barn
from .buildings import rooms
from .caves import cave
from .halls import far, hall
from .mazes import maze
from .ros_map import from_ros_map
from .warehouses import warehouse
from .world import LABELS, World

__all__ = [
    "LABELS", "World", "barn", "cave", "far", "from_ros_map", "hall", "maze", "rooms", "warehouse",
]  # fmt: skip
