"""The node. In a checkout, `afov_ros.msg` is the one that CMake built and installed."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
