"""The student network: a sparse U-Net on spconv."""
