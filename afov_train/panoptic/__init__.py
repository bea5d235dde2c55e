"""Open-vocabulary panoptic segmentation with LiDAR and camera (arXiv 2401.02402)."""
