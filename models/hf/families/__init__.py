"""The model families whose checkpoints this project reads and writes, one file for each family.

To add one (Mistral, Gemma, ...), write `models/hf/families/NAME.py` with a `FAMILY`, where NAME is
the `model_type` of its `config.json`, and add NAME to `models.config.FAMILIES`. The file says what
`transformers` calls the classes, which switches the family has, how its own fields are read and
written, and under which names the tensors of a layer are stored; see `families.family.Family`.
"""

import importlib

from models.config import FAMILIES
from models.hf.families.family import Family


def get_family(name: str) -> Family:
    """Returns the family of a `model_type`.

    Raises:
      ValueError: if no family has this name.
    """
    if name not in FAMILIES:
        raise ValueError(
            f"config.json: model_type={name!r:.80} is not supported; only {', '.join(FAMILIES)} are"
        )
    return importlib.import_module(f"models.hf.families.{name}").FAMILY


def owners(feature: str) -> list[str]:
    """Returns the names of the families that have a feature from `family.FEATURES`."""
    return [name for name in FAMILIES if feature in get_family(name).features]
