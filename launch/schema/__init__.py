"""What a config may hold: one frozen dataclass for each recipe, with types, ranges and units.

Entry points turn the ConfigDict of a config file into one of these before anything else is done,
so that every mistake is said in one line before long work starts. `fields` and `loading` are the
mechanism, `sections` holds what recipes share, and each kind of recipe has a module. See
`python -m launch.run_rl --print_config`.
"""

from launch.schema.fields import Recipe, Section, Setting, as_dict, given
from launch.schema.loading import ConfigError, load

__all__ = ["ConfigError", "Recipe", "Section", "Setting", "as_dict", "given", "load"]
