"""Waits until a node is active, so that what is played afterwards finds it listening.

python -m afov_ros.wait_active /afov
"""

from __future__ import annotations

import argparse
import sys
import time

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.executors import ExternalShutdownException


def wait_active(name: str, patience: float) -> bool:
    """Whether the lifecycle node of that full name is active within `patience` seconds."""
    node = rclpy.create_node("afov_wait_active")
    client = node.create_client(GetState, f"{name}/get_state")
    until = time.monotonic() + patience
    try:
        while time.monotonic() < until:
            if client.wait_for_service(timeout_sec=0.5):
                asked = client.call_async(GetState.Request())
                # An answer may get lost while the two still find each other: ask again then.
                rclpy.spin_until_future_complete(node, asked, timeout_sec=1.0)
                answer = asked.result() if asked.done() else None
                if answer and answer.current_state.id == State.PRIMARY_STATE_ACTIVE:
                    return True
                time.sleep(0.1)
        return False
    finally:
        node.destroy_node()


def main() -> int:
    """The command line; 0 once it is active."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("node", help="full name, /afov")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds")
    args = parser.parse_args()
    rclpy.init()
    try:
        if wait_active(args.node, args.patience):
            return 0
        print(f"{args.node} is not active after {args.patience:.0f} s", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        return 1
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
