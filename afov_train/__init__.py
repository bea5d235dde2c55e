"""The trainer: a recorded drive in, a model folder out; no hand-made label on the way."""
