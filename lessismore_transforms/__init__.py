"""Reduce CT volumes to the slices worth learning from, and pre-train 2-D encoders on them with MONAI."""

__version__ = "0.1.0"
