"""Where a model lies, by the forms in which every entry point takes one.

DIR                      a directory in Hugging Face layout, also one of a remote store (gs://)
hf://org/name[@revision] a repository of the Hugging Face Hub
gguf:FILE, or FILE.gguf  a file of llama.cpp's format
pip:PACKAGE              a package that ships a model, see `models.pip_models`
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors

from models.host.storage import as_path, check_reachable
from models.pip_models import find_packaged

_SCHEME, _GGUF, _PIP = "hf://", "gguf:", "pip:"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ["*.json", "*.safetensors", "*.jinja"]


def locate(source: str | os.PathLike) -> Path:
    """Where a model lies: a directory in Hugging Face layout, downloaded if need be, or a file.

    Args:
      source: one of the forms above; what this function returned before stays as it is.

    Raises:
      OSError, ValueError: there is no such model; one line with the remedy.
    """
    text = str(source)
    if not text:
        raise ValueError(
            "no model is given: name a directory, hf://org/name, gguf:FILE or pip:PACKAGE"
        )
    if text.startswith(_PIP):
        return find_packaged(text.removeprefix(_PIP))
    if text.startswith("gs:"):
        return resolve(source)
    path = Path(text.removeprefix(_GGUF)).expanduser()
    if text.startswith(_GGUF) and not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"GGUF file {str(path)!r} {what}; {_GGUF} takes the path of a file")
    return path if path.is_file() else resolve(source)


def resolve(source: str | os.PathLike) -> Path:
    """The directory of a checkpoint, downloaded into the Hub's cache if it is `hf://`.

    A directory of a remote store stays where it is: its readers read from there.

    Raises:
      FileNotFoundError: no such directory, repository or revision.
      PermissionError: the repository asks for a login or an accepted licence.
      ConnectionError: the Hub cannot be reached and the cache does not hold the checkpoint.
    """
    text = str(source)
    if text.startswith(_SCHEME):
        return _download(text)
    path = as_path(text) if text.startswith("gs:") else Path(text).expanduser()
    check_reachable(path)
    if path.is_dir():
        return path
    hint = f"; a model of the Hub is written {_SCHEME}{text}" if _REPOSITORY.fullmatch(text) else ""
    raise FileNotFoundError(f"checkpoint directory {text!r} does not exist{hint}")


def _download(text: str) -> Path:
    repository, _, revision = text.removeprefix(_SCHEME).partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise FileNotFoundError(
            f"{text!r} does not name a model; write {_SCHEME}org/name[@revision]"
        )
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=_FILES
            )
        )
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{text} is gated; accept its licence at https://huggingface.co/{repository} and run "
            "`hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{text} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{text} does not exist on the Hub, or is private; check the name, or run "
            "`hf auth login`"
        ) from error
    except Exception as error:  # Whatever the HTTP client of this version of the library raises.
        raise ConnectionError(
            f"{text} cannot be downloaded ({type(error).__name__}); where there is no network, run "
            f"`hf download {repository} --local-dir DIR` elsewhere, copy DIR here and pass its path"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: it does not hold a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path.parent} has no {path.name}; is it a model directory in Hugging Face layout?"
        ) from None
    except RecursionError:
        raise ValueError(f"{path} is not valid JSON: it is nested too deeply") from None
    except ValueError as error:  # Also bytes that are not UTF-8, and numbers of too many digits.
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value
