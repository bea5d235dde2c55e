"""Runs the node until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import sys

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.utilities import remove_ros_args

from afov_ros.node import AfovNode

# Seconds until a thread that labels must hand Python's lock on. With Python's own 5 ms the thread
# that takes clouds in waited up to 160 ms for it, and clouds went by that there was time for.
HANDOVER = 0.0005


def main(args: list[str] | None = None) -> int:
    """Initialises ROS, and ends it again; 2 where a parameter or an argument is wrong."""
    about = "Labels live clouds. Parameters: --ros-args -p NAME:=VALUE (docs/node.md)"
    parser = argparse.ArgumentParser(prog="afov_node", description=about)
    parser.parse_args(remove_ros_args(sys.argv if args is None else args)[1:])
    sys.setswitchinterval(HANDOVER)
    rclpy.init(args=args)
    try:
        node = AfovNode()
    except ParameterException as error:
        print(f"afov_node: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    except Exception:
        if rclpy.ok():
            raise
        return 0  # a signal ended the context meanwhile
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    try:
        if node.get_parameter("autostart").value:
            node.start()
        # SIGTERM, and SIGINT where a script started this in the background, end the context alone.
        # Should the wait miss that, it is looked at every second.
        while rclpy.ok():
            try:
                executor.spin_once(timeout_sec=1.0)
            except ExternalShutdownException:
                break
            except Exception as error:
                # rclpy raises here what a peer did wrong: a transition that is none, a request
                # that cannot be decoded; or that the context ended just now.
                if rclpy.ok():
                    node.get_logger().error(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:  # anywhere: the model may still be opening
        pass
    except Exception:
        if rclpy.ok():  # else a signal ended the context under a transition
            raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one, of an impatient hand
        # The logger's ROS side is gone after SIGINT; the console is not.
        print(f"afov_node: {node.health.counts}", file=sys.stderr)
        node.stop()
        executor.shutdown(timeout_sec=1.0)
        node.stop()  # a transition may have been under way
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
