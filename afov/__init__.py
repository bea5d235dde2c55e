"""AFOV's core: from a LiDAR sweep to open-vocabulary labels. No ROS, no training."""
