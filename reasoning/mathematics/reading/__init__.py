"""Reads mathematical text: LaTeX as trees, quantities with units, lists and words."""
