"""The trainer: a recorded drive in, a model folder out; no hand-made label on the way."""

import os

# OpenMP's waiting threads spin by default, and on a busy machine torch then stands still.
# It must be said before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
