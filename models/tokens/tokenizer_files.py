"""Reads and checks the files that describe a tokenizer in a checkpoint directory."""

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from models.checkpoint_source import read_json
from models.host.storage import is_remote

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
GENERATION_FILE = "generation_config.json"

_TRIAL_FILE = Path(__file__).with_name("tokenizer_trial.py")
_TRIAL_SECONDS = 300.0  # The trial limits its processor time itself; this is for a stalled machine.
_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclasses.dataclass(frozen=True)
class TokenizerFiles:
    """The tokenizer files of a directory, parsed.

    Attributes:
      backend: maps text to ids; the tokens that only `tokenizer_config.json` names are added.
      config: fields of `tokenizer_config.json` and `special_tokens_map.json`.
      template: jinja source of the chat template, or None.
      template_name: source of the template, for error messages.
      stop_ids: ids that end a response, besides the `eos_token`.
      generation: fields of `generation_config.json`.
    """

    backend: tokenizers.Tokenizer
    config: dict[str, Any]
    template: str | None
    template_name: str
    stop_ids: tuple[int, ...]
    generation: dict[str, Any]


def read_tokenizer_files(directory: Path) -> TokenizerFiles:
    """Reads the tokenizer files of a directory.

    The function first tries out an unknown `tokenizer.json` in a process with limits, because a
    hostile file can hang or abort the process that loads it.

    Raises:
      OSError, ValueError: if a file is missing or malformed; the message is one line that names
        it.
    """
    path = directory / TOKENIZER_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"{directory} has no {TOKENIZER_FILE}; transformers writes it: "
            f"AutoTokenizer.from_pretrained({str(directory)!r}).save_pretrained(...)"
        )
    _try_out(path)
    try:
        backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # The library raises no narrower class.
        raise ValueError(f"{path} is not a tokenizer: {error}") from None

    def optional(name: str) -> dict[str, Any]:
        return read_json(directory / name) if (directory / name).exists() else {}

    config = optional("special_tokens_map.json") | optional(CONFIG_FILE)
    _add_tokens(backend, config, directory / CONFIG_FILE)
    template, template_name = _template(directory, config)
    generation, model = optional(GENERATION_FILE), optional("config.json")
    holder = GENERATION_FILE if generation.get("eos_token_id") is not None else "config.json"
    eos = (generation if holder == GENERATION_FILE else model).get("eos_token_id")
    vocabulary = max(backend.get_vocab(with_added_tokens=True).values(), default=0) + 1
    if isinstance(size := model.get("vocab_size"), int):
        vocabulary = max(vocabulary, size)  # A model's vocabulary may be padded.
    stop_ids = _token_ids(eos, f"{directory / holder}: eos_token_id", vocabulary)
    return TokenizerFiles(backend, config, template, template_name, stop_ids, generation)


def mark_checked(path: Path) -> None:
    """Records that a `tokenizer.json`, such as one just saved, needs no trial."""
    try:
        marker = _marker(path)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError:
        pass  # Without a cache every load repeats the trial.


def content_of(value: Any) -> str | None:
    """Returns the text of a special token, which config files hold as a string or a dict."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def portable_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `tokenizer_config.json` fields in a form that transformers 4 and 5 can read."""
    config = dict(config)
    if config.get("tokenizer_class") == "TokenizersBackend":
        # transformers 5 writes this name, which 4 does not know; both know the old one.
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(extra := config.get("extra_special_tokens"), list):
        # In transformers 4 this field is an object, and the list has another name; 5 reads both.
        del config["extra_special_tokens"]
        config["additional_special_tokens"] = extra
    return config


def _marker(path: Path) -> Path:
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16)
    for part in (_TRIAL_FILE.read_bytes(), tokenizers.__version__.encode()):
        digest.update(part)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "ergo" / "tokenizers" / digest.hexdigest()


def _try_out(path: Path) -> None:
    """Raises `ValueError` if loading the file or encoding with it fails or exceeds limits."""
    try:
        if _marker(path).exists():
            return
    except (OSError, RuntimeError):
        pass  # For example, there is no home directory.
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="tokenizer.") as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(path.read_bytes())
            return _try_out(copy)
    # Published files of 35 MB need less than 1 GiB.
    memory_bytes = 768 * 2**20 + 40 * path.stat().st_size
    try:
        trial = subprocess.run(
            [sys.executable, "-I", str(_TRIAL_FILE), str(path), str(memory_bytes)],
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path} is refused: a trial took over {_TRIAL_SECONDS:g} s") from None
    if trial.returncode == 0:
        mark_checked(path)
        return
    if trial.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        cause = "loading it and encoding short texts takes too much processor time"
    elif trial.returncode < 0:
        cause = f"loading it and encoding short texts takes over {memory_bytes >> 20} MiB"
    else:
        lines = trial.stdout.decode("utf-8", "replace").strip().splitlines()
        cause = lines[-1] if lines else "it cannot be tried out"
    raise ValueError(f"{path} is not a tokenizer: {cause}")


def _add_tokens(backend: tokenizers.Tokenizer, config: Mapping[str, Any], path: Path) -> None:
    """Adds the tokens that only `tokenizer_config.json` names, as transformers does."""
    named = config.get("added_tokens_decoder") or {}
    if not isinstance(named, Mapping):
        raise ValueError(f"{path}: added_tokens_decoder={named!r:.80} is not an object")
    try:
        entries = sorted((int(index), fields) for index, fields in named.items())
    except (ValueError, TypeError):
        raise ValueError(f"{path}: added_tokens_decoder has keys that are not token ids") from None
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    for index, fields in entries:
        content = content_of(fields)
        if not content:
            raise ValueError(
                f"{path}: added_tokens_decoder[{index}]={fields!r:.80} has no text in 'content'"
            )
        flags = {flag: bool(fields[flag]) for flag in _TOKEN_FLAGS if flag in fields}
        token = tokenizers.AddedToken(content, **flags)
        if content not in known or repr(known[content]) != repr(token):
            add = backend.add_special_tokens if token.special else backend.add_tokens
            add([token])
        if (found := backend.token_to_id(content)) != index:
            raise ValueError(
                f"{path}: added_tokens_decoder gives {content!r} the id {index}, but in"
                f" {TOKENIZER_FILE} it has {found}; correct one of them"
            )
    backend.add_special_tokens(
        [
            tokenizers.AddedToken(text, special=True, normalized=False)
            for text in _more_special_tokens(config)
            if backend.token_to_id(text) is None
        ]
    )


def _more_special_tokens(config: Mapping[str, Any]) -> list[str]:
    """Returns special tokens without a role; their field differs in transformers 4 and 5."""
    values: list[Any] = []
    for field in ("additional_special_tokens", "extra_special_tokens"):
        value = config.get(field)
        values += value.values() if isinstance(value, Mapping) else value or ()
    return [text for value in values if (text := content_of(value))]


def _template(directory: Path, config: Mapping[str, Any]) -> tuple[str | None, str]:
    """Returns the chat template and its source: a separate file or a field of the config."""
    path = directory / TEMPLATE_FILE
    if path.exists():
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error}") from None
    template, name = config.get("chat_template"), f"{directory / CONFIG_FILE}: chat_template"
    if isinstance(template, list):
        if not all(
            isinstance(each, Mapping)
            and isinstance(each.get("name"), str)
            and isinstance(each.get("template"), str)
            for each in template
        ):
            raise ValueError(f"{name} is a list whose entries lack a 'name' or a 'template'")
        template = {each["name"]: each["template"] for each in template}.get("default")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{name} is a {type(template).__name__}; it must be text, or a list")
    return template, name


def _token_ids(value: Any, name: str, vocabulary: int) -> tuple[int, ...]:
    """Reads token ids from a number, a list of numbers, or null."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int):
            raise ValueError(f"{name}={value!r:.80} is not a token id, or a list of token ids")
        if not 0 <= token_id < vocabulary:
            raise ValueError(f"{name}={value!r:.80} is not within 0..{vocabulary - 1}")
    return tuple(ids)
