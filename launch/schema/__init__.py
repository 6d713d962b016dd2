"""Defines what a config may hold: a frozen dataclass for each recipe, with types, ranges and units.

Entry points first turn the ConfigDict of a config file into such a dataclass, so that every mistake
gives one line before long work starts. `fields` and `loading` are the mechanism, `sections` holds
what recipes share, and each kind of recipe has a module. `python -m launch.run_rl --print_config`
shows an example.
"""

from launch.schema.fields import Recipe, Section, Setting, as_dict, given
from launch.schema.loading import ConfigError, load

__all__ = ["ConfigError", "Recipe", "Section", "Setting", "as_dict", "given", "load"]
