"""Reading mathematical text: LaTeX to trees, quantities with units, lists and words."""
