"""One environment for every test, however pytest was started.

It is set before numpy, torch or rclpy are imported and inherited by the
processes that tests start.
"""

from __future__ import annotations

import os
import signal
import sys

# A shell without job control starts what goes to its background deaf to SIGINT, and so would be
# every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two OpenMP threads beside a busy process take a training update from 10 to 155 ms.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Nodes of a test meet neither another machine's nodes nor, but for a chance
# collision, those of another test run here. Domains 0 to 101 are free on Linux.
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))

# ROS 2 from PyPI lies in the virtual environment; a sourced ROS names its own prefix.
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
