"""The robot's side: one ROS 2 node per file, and plain functions between messages and arrays."""
