"""Incognita: exploration policies trained in MuJoCo, driven over ROS 2."""

__version__ = "0.1.0"
