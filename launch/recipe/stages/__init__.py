"""The stages of the recipe, one file each."""
