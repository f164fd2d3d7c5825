"""Plays a robot's lidar, odometry and planner over DDS, well or with a fault; run as a process."""

import argparse
import math
import random
import signal
import sys
import time

import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import LaserScan

from rnd_agv.observation import full_circle
from ros_nodes import convert

FAULTS = ("", "nan", "contact", "empty", "length", "frozen", "future", "past", "jump", "quaternion")
parser = argparse.ArgumentParser()
parser.add_argument("--topics", default="scan,odom,command")
parser.add_argument("--faults", default="", help="SIGUSR1 begins the first, then ends it, ...")
parser.add_argument("--commands", default="steady", choices=("steady", "wild"))
options = parser.parse_args()
faults = options.faults.split(",")
assert set(faults) <= set(FAULTS), faults

turns = []
signal.signal(signal.SIGUSR1, lambda *_: turns.append(1))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
node = rclpy.create_node("feeder")
scan_out = node.create_publisher(LaserScan, "scan", 5)
odom_out = node.create_publisher(Odometry, "odom", 10)
raw_out = node.create_publisher(TwistStamped, "cmd_vel_raw", 1)
spec, free = full_circle(180, 10.0, 0.05), np.full(180, np.inf, np.float32)
wild = random.Random(0)
begun = frozen = time.time()
for step in range(100_000):
    now = time.time()
    fault = faults[len(turns) // 2] if len(turns) % 2 else ""
    frozen = frozen if fault else now
    if "scan" in options.topics and step % 2 == 0:
        values = {"nan": free * math.nan, "contact": -free, "empty": free[:0]}.get(fault, free)
        stamp = {"frozen": frozen, "future": now + 3600, "past": now - 3600}.get(fault, now)
        msg = convert.msg_from_scan(values, spec, stamp, "lidar")
        if fault == "length":
            msg.ranges = msg.ranges[:100]
        scan_out.publish(msg)
    if "odom" in options.topics:
        where = 0.3 * (now - begun) + (5.0 if fault == "jump" else 0.0)
        msg = convert.msg_from_odometry((where, 0.0, 0.0), (0.3, 0.0), now)
        if fault == "quaternion":
            msg.pose.pose.orientation.w = 0.0
        odom_out.publish(msg)
    if "command" in options.topics:
        command = (0.3, 0.1)
        if options.commands == "wild":
            command = tuple(
                wild.choice((math.nan, math.inf, -math.inf, 1e9, -1e9, 0.2)) for _ in "vw"
            )
        raw_out.publish(convert.twist_from_command(command, True, now))
    time.sleep(max(begun + 0.05 * (step + 1) - time.time(), 0.0))
