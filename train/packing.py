"""Packing lives in `models.packing`, where scoring finds it too; here it is for training."""

from models.packing import Placement, pack, place, place_apart

__all__ = ["Placement", "pack", "place", "place_apart"]
