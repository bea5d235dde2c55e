"""Where frames come from: bags, nuScenes."""
