"""Loads and applies tokenizers in Hugging Face layout, with chat templates; without JAX."""

import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from models.checkpoint_source import resolve
from models.host.storage import as_path, is_remote, make_folder
from models.tokens import chat_template
from models.tokens.tokenizer_files import (
    CONFIG_FILE,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
    content_of,
    mark_checked,
    portable_config,
    read_tokenizer_files,
)


class Tokenizer:
    """A HF `tokenizers` tokenizer with its special tokens and its chat template.

    Decoding is the exact inverse of encoding: `clean_up_tokenization_spaces`, which makes
    transformers 4 drop spaces before punctuation, is ignored.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: Mapping[str, Any],
        template: str | None = None,
        stop_ids: Sequence[int] = (),
        *,
        template_name: str = "chat template",
        generation: Mapping[str, Any] | None = None,
    ):
        """Wraps a `tokenizers` tokenizer.

        Args:
          backend: maps text to ids.
          config: fields of `tokenizer_config.json`; fields named `*_token` are special tokens.
          template: jinja source of the chat template.
          stop_ids: ids that end a response, besides the `eos_token`.
          template_name: name of the template in errors, such as its file.
          generation: fields of `generation_config.json`, kept for the export.
        """
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self._config = {key: value for key, value in config.items() if key != "chat_template"}
        self._stop_ids = tuple(stop_ids)
        self._embedded: int | None = None
        self.template = template
        self._template_name = template_name
        self.generation = dict(generation or {})
        self.special_tokens = {
            key: text
            for key, value in config.items()
            if key.endswith("_token") and (text := content_of(value)) is not None
        }

    @classmethod
    def from_directory(cls, source: str | os.PathLike) -> "Tokenizer":
        """Loads the tokenizer of a checkpoint directory or `hf://org/name`.

        The chat template comes from `chat_template.jinja`, or else from `tokenizer_config.json`
        (if that has several, the one named "default"). Stop ids are the `eos_token` and the
        `eos_token_id`s of `generation_config.json`, or else of `config.json`.

        Raises:
          OSError, ValueError: if a file is missing or malformed; the message is one line.
        """
        files = read_tokenizer_files(resolve(source))
        return cls(
            files.backend,
            files.config,
            files.template,
            files.stop_ids,
            template_name=files.template_name,
            generation=files.generation,
        )

    def save(self, directory: str | os.PathLike) -> None:
        """Writes `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`.

        transformers 4.57 and 5 read them. Stop ids besides the `eos_token` belong to
        `generation_config.json`: see `export_model`.
        """
        directory = as_path(directory)
        make_folder(directory)
        (directory / TOKENIZER_FILE).write_text(self._backend.to_str(pretty=True), "utf-8")
        if not is_remote(directory):
            mark_checked(directory / TOKENIZER_FILE)
        text = json.dumps(portable_config(self._config), indent=2, ensure_ascii=False)
        (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        if self.template is not None:
            (directory / TEMPLATE_FILE).write_text(self.template, encoding="utf-8")

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """Returns the `tokenizers` object that maps text to ids; do not change it."""
        return self._backend

    @functools.cached_property
    def vocab_size(self) -> int:
        """Returns the largest id plus one. A model may have a larger, padded vocabulary."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def check_fits(self, model_vocab_size: int) -> None:
        """Checks that a model with this vocabulary can embed what the tokenizer produces.

        Added tokens that the model cannot embed are allowed; `encode` refuses a text that contains
        one.

        Raises:
          ValueError: if a token of the tokenizer's own vocabulary, or one with a role, is beyond
            the model's vocabulary.
        """
        if self.vocab_size <= model_vocab_size:
            return
        beyond = {i for i in self._backend.get_vocab().values() if i >= model_vocab_size}
        if beyond - set(self._added_tokens):
            raise ValueError(
                f"the tokenizer has {self.vocab_size} tokens but the model's vocab_size is "
                f"{model_vocab_size}; use the model's own tokenizer"
            )
        tokens = self.special_tokens
        roles = {kind: self._backend.token_to_id(text) for kind, text in tokens.items()}
        roles |= {"eos_token_id": max(self._stop_ids, default=0)}
        for role, token_id in roles.items():
            if token_id is not None and token_id >= model_vocab_size:
                raise ValueError(
                    f"the tokenizer's {role} is token {token_id}, but the model's vocab_size is "
                    f"{model_vocab_size}; use the model's own tokenizer"
                )
        self._embedded = model_vocab_size

    def token_id(self, token: str) -> int:
        """Returns the id of a token by its text; raises `ValueError` if there is no such token."""
        token_id = self._backend.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the tokenizer has no token {token!r}; use one that has, or add it")
        return token_id

    @property
    def eos_id(self) -> int:
        """Returns the id that ends a sequence; raises `ValueError` if none is declared."""
        return self._special_id("eos_token")

    @property
    def bos_id(self) -> int:
        """Returns the id that begins a sequence; raises `ValueError` if none is declared."""
        return self._special_id("bos_token")

    @property
    def pad_id(self) -> int:
        """Returns the id that fills up rows; `eos_id` if none is declared.

        Use `segment_ids`, not this id, to find padding: in many tokenizers the same id also ends a
        response.
        """
        return self._special_id("pad_token" if "pad_token" in self.special_tokens else "eos_token")

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Returns all ids that end a response, `eos_id` first; raises `ValueError` without any."""
        eos = () if "eos_token" not in self.special_tokens and self._stop_ids else (self.eos_id,)
        return tuple(dict.fromkeys(eos + self._stop_ids))

    def special_ids(self) -> dict[str, Any]:
        """Returns `bos_token_id`, `eos_token_id` and `pad_token_id` as in HF config files."""
        ids: dict[str, Any] = {
            f"{kind}_token_id": self._special_id(f"{kind}_token")
            for kind in ("bos", "pad")
            if f"{kind}_token" in self.special_tokens
        }
        if "eos_token" in self.special_tokens or self._stop_ids:
            ids["eos_token_id"] = self.stop_ids[0] if len(self.stop_ids) == 1 else [*self.stop_ids]
        return ids

    def encode(self, text: str) -> list[int]:
        """Encodes a text that continues a sequence; special tokens in it become their ids.

        Use `encode_prompts` for a text that begins a sequence.

        Raises:
          ValueError: if the text is not valid Unicode or contains a token that the model cannot
            embed.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes many texts in parallel, each as `encode` does."""
        try:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            raise ValueError(_not_text(texts)) from None
        except BaseException as error:  # A panic of the library derives from it.
            if type(error).__name__ != "PanicException":
                raise
            raise ValueError(f"the tokenizer cannot encode a text: {error}") from None
        ids = [encoding.ids for encoding in encodings]
        if self._embedded is not None:
            for row in ids:
                if row and max(row) >= self._embedded:
                    token = self._backend.id_to_token(max(row))
                    raise ValueError(
                        f"a text holds the token {token!r}, which the model cannot embed: its"
                        f" vocab_size is {self._embedded}"
                    )
        return ids

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes texts that begin a sequence: prompts, rendered chats, whole documents.

        The tokenizer's opening tokens come first: `add_bos_token` decides if
        `tokenizer_config.json` has it (DeepSeek), else the post-processor does (Llama 3). A text
        that already begins with a special token, such as a rendered chat, gets no other opening.
        Nothing is appended.
        """
        front, special = self._front
        return [
            ids if not front or (ids and ids[0] in special) else [*front, *ids]
            for ids in self.encode_batch(texts)
        ]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Decodes ids to text; bytes that do not form a whole UTF-8 character become U+FFFD."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """Returns the UTF-8 bytes that one token adds to a text.

        The result is exact for byte-level BPE (Llama 3, Qwen) and for tokens that stand for one
        byte. Otherwise it is the text that the token decodes to after another token. It is empty
        for ids without a token, as in the padded part of a model's vocabulary.
        """
        if (added := self._added_tokens.get(token_id)) is not None:
            return added.encode()
        token = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        if "ByteLevel" in self._decoder_types:
            return bytes(BYTE_OF_CHARACTER[character] for character in token)
        if "ByteFallback" in self._decoder_types and len(token) == 6 and token.startswith("<0x"):
            return bytes([int(token[3:5], 16)])
        once, twice = self.decode([token_id]), self.decode([token_id, token_id])
        return twice.removeprefix(once).encode()

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str:
        """Renders a conversation as text for `encode_prompts`.

        Args:
          messages: dicts with `role` ("system", "user", "assistant") and `content`.
          add_generation_prompt: whether to append the opening of an assistant turn.
          **variables: further variables of the template, e.g. `tools` or `enable_thinking`.

        Raises:
          ValueError: if there is no template, or it is malformed, refuses these messages or
            exceeds the limits of `models.tokens.chat_template`.
        """
        if self.template is None:
            raise ValueError(
                "the tokenizer has no chat template; use the instruct model's tokenizer or save a "
                f"{TEMPLATE_FILE} next to its {TOKENIZER_FILE}"
            )
        variables = self.special_tokens | {"tools": None, "documents": None} | variables
        return chat_template.render(
            self.template,
            name=self._template_name,
            messages=list(messages),
            add_generation_prompt=add_generation_prompt,
            **variables,
        )

    def template_reads(self, variable: str) -> bool:
        """Returns whether the chat template's source names a variable."""
        return bool(re.search(rf"\b{re.escape(variable)}\b", self.template or ""))

    def _special_id(self, kind: str) -> int:
        if kind not in self.special_tokens:
            raise ValueError(f"the tokenizer declares no {kind}; set it in {CONFIG_FILE}")
        return self.token_id(self.special_tokens[kind])

    @functools.cached_property
    def _front(self) -> tuple[list[int], frozenset[int]]:
        """Returns the opening tokens of a sequence, and the ids of all special tokens."""
        if isinstance(add_bos := self._config.get("add_bos_token"), bool):
            # This follows transformers 4 for the classes that write this field. Version 5 reads
            # only the post-processor, which does not add the BOS in DeepSeek's files.
            front = [self.bos_id] if add_bos and "bos_token" in self.special_tokens else []
        else:
            bare, whole = (
                self._backend.encode("a", add_special_tokens=special).ids
                for special in (False, True)
            )
            places = range(len(whole) - len(bare) + 1)
            start = next((i for i in places if whole[i : i + len(bare)] == bare), 0)
            front = whole[:start]
        added = self._backend.get_added_tokens_decoder()
        special = {token_id for token_id, token in added.items() if token.special}
        roles = {self._backend.token_to_id(text) for text in self.special_tokens.values()}
        return front, frozenset(special | {role for role in roles if role is not None} | set(front))

    @functools.cached_property
    def _added_tokens(self) -> dict[int, str]:
        added = self._backend.get_added_tokens_decoder()
        return {token_id: token.content for token_id, token in added.items()}

    @functools.cached_property
    def _decoder_types(self) -> frozenset[str]:
        if self._backend.decoder is None:
            return frozenset()
        state = json.loads(self._backend.decoder.__getstate__())
        return frozenset(each["type"] for each in state.get("decoders", [state]))


def _not_text(texts: Sequence[Any]) -> str:
    """Says why the library refuses one of these texts."""
    for text in texts:
        if not isinstance(text, str):
            return f"{text!r:.80} is a {type(text).__name__}; only text can be tokenized"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return f"a text holds {text[error.start]!r}, half of a character"
    return "a text cannot be tokenized"


def _byte_of_character() -> dict[str, int]:
    # Byte-level BPE writes each byte as a printable character (GPT-2): printable Latin-1 bytes as
    # themselves, the others, in order, as the characters from 256 on.
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), 256),
    ]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()
