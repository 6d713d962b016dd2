"""Shipped configs that list their arguments are valid with each of them."""

import importlib
from pathlib import Path

import pytest

from launch.schema.fields import as_dict
from launch.schema.loading import fits, load, recipes

CONFIGS = Path(__file__).parents[3] / "configs"
# What a user has to add.
SERVER = {"teacher.server": "http://localhost:8000", "teacher.model": "any", "task": "gsm8k"}
ADDED = {
    ("router", "outcomes"): {"outcomes": __file__},
    ("teacher", ""): SERVER,
    ("teacher", "tags"): SERVER,
}


def shipped():
    for path in sorted(CONFIGS.glob("*.py")):
        module = importlib.import_module(f"configs.{path.stem}")
        for argument in getattr(module, "ARGUMENTS", ()):
            yield path.stem, argument


@pytest.mark.parametrize(("name", "argument"), list(shipped()))
def test_a_shipped_config_is_valid(name, argument):
    config = importlib.import_module(f"configs.{name}").get_config(argument)
    config.update_from_flattened_dict(ADDED.get((name, argument), {}))
    (schema,) = [each for each in recipes() if fits(each, set(config.keys()))]
    assert set(as_dict(load(schema, config))) >= set(config.keys())
