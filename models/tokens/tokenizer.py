"""Tokenizers in Hugging Face layout: load, train, encode, decode, chat templates. Free of JAX."""

import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from models.checkpoint_source import read_json, resolve
from models.tokens import chat_template

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"


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
    ):
        """Args:
        backend: maps text to ids.
        config: fields of `tokenizer_config.json`; those named `*_token` are the special tokens.
        template: jinja source of the chat template.
        stop_ids: ids that end a response, besides the `eos_token`.
        """
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self._config = {key: value for key, value in config.items() if key != "chat_template"}
        self._stop_ids = tuple(stop_ids)
        self.template = template
        self.special_tokens = {
            key: text
            for key, value in config.items()
            if key.endswith("_token") and (text := _content(value)) is not None
        }

    @classmethod
    def from_directory(cls, source: str | os.PathLike) -> "Tokenizer":
        """The tokenizer of a checkpoint directory or `hf://org/name`.

        The chat template is `chat_template.jinja`, or else the one in `tokenizer_config.json` (of
        several named ones, the one called "default"). Stop ids are the `eos_token` and the
        `eos_token_id`s of `generation_config.json`, or else of `config.json`.

        Raises:
          OSError, ValueError: one line that says which file is missing or malformed.
        """
        directory = resolve(source)
        path = directory / TOKENIZER_FILE
        if not path.exists():
            raise FileNotFoundError(
                f"{directory} has no {TOKENIZER_FILE}; transformers writes it: "
                f"AutoTokenizer.from_pretrained({str(directory)!r}).save_pretrained(...)"
            )
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # The library raises no narrower class.
            raise ValueError(f"{path} is not a tokenizer: {error}") from None

        def optional(name: str) -> dict[str, Any]:
            return read_json(directory / name) if (directory / name).exists() else {}

        config = optional("special_tokens_map.json") | optional(CONFIG_FILE)
        template = config.get("chat_template")
        if isinstance(template, list):
            template = {each["name"]: each["template"] for each in template}.get("default")
        if (directory / TEMPLATE_FILE).exists():
            template = (directory / TEMPLATE_FILE).read_text(encoding="utf-8")
        eos = optional("generation_config.json").get("eos_token_id")
        eos = optional("config.json").get("eos_token_id") if eos is None else eos
        stop_ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
        return cls(backend, config, template, stop_ids)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`.

        Stop ids besides the `eos_token` belong to `generation_config.json`: see `export_model`.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(directory / TOKENIZER_FILE))
        config = self._config
        if config.get("tokenizer_class") == "TokenizersBackend":
            # What transformers 5 writes and 4 does not know; both know its old name.
            config = config | {"tokenizer_class": "PreTrainedTokenizerFast"}
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        if self.template is not None:
            (directory / TEMPLATE_FILE).write_text(self.template, encoding="utf-8")

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """What maps text to ids; not to be changed."""
        return self._backend

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id. A model may have a larger, padded vocabulary."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def check_fits(self, model_vocab_size: int) -> None:
        """Raises `ValueError` where a model with this vocabulary cannot embed every token."""
        if self.vocab_size > model_vocab_size:
            raise ValueError(
                f"the tokenizer has {self.vocab_size} tokens but the model's vocab_size is "
                f"{model_vocab_size}; use the model's own tokenizer"
            )

    def token_id(self, token: str) -> int:
        """The id of a token by its text. Raises `ValueError` where it is not one token."""
        token_id = self._backend.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the tokenizer has no token {token!r}; use one that has, or add it")
        return token_id

    @property
    def eos_id(self) -> int:
        """The id that ends a sequence. Raises `ValueError` where none is declared."""
        return self._special_id("eos_token")

    @property
    def bos_id(self) -> int:
        """The id that begins a sequence. Raises `ValueError` where none is declared."""
        return self._special_id("bos_token")

    @property
    def pad_id(self) -> int:
        """The id that fills rows up; `eos_id` where none is declared.

        Nothing may be inferred from this id: what is padding is told by `segment_ids`, since in
        many tokenizers it is also the id that ends a response.
        """
        return self._special_id("pad_token" if "pad_token" in self.special_tokens else "eos_token")

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """All ids that end a response, `eos_id` first. Raises `ValueError` where there is none."""
        eos = () if "eos_token" not in self.special_tokens and self._stop_ids else (self.eos_id,)
        return tuple(dict.fromkeys(eos + self._stop_ids))

    def special_ids(self) -> dict[str, Any]:
        """`bos_token_id`, `eos_token_id` and `pad_token_id` as HF config files hold them."""
        ids: dict[str, Any] = {
            f"{kind}_token_id": self._special_id(f"{kind}_token")
            for kind in ("bos", "pad")
            if f"{kind}_token" in self.special_tokens
        }
        if "eos_token" in self.special_tokens or self._stop_ids:
            ids["eos_token_id"] = self.stop_ids[0] if len(self.stop_ids) == 1 else [*self.stop_ids]
        return ids

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Ids of a text; special tokens written in it become their ids.

        Args:
          text: any text; a rendered chat template brings its own special tokens.
          add_special_tokens: run the tokenizer's post-processor (Llama 3 prepends its `bos_token`).
        """
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def encode_batch(
        self, texts: Sequence[str], *, add_special_tokens: bool = False
    ) -> list[list[int]]:
        """`encode` of many texts, in parallel."""
        encodings = self._backend.encode_batch_fast(
            list(texts), add_special_tokens=add_special_tokens
        )
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of ids. Bytes that are no whole UTF-8 character become U+FFFD."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes that one token adds to a text.

        Exact for byte-level BPE (Llama 3, Qwen) and for tokens that stand for one byte; otherwise
        what the token decodes to when another precedes it. Empty for ids that no token has, as in
        the padded part of a model's vocabulary.
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
        """The text of a conversation; `encode` it without `add_special_tokens`.

        Args:
          messages: dicts with `role` ("system", "user", "assistant") and `content`.
          add_generation_prompt: end with what opens an assistant turn.
          **variables: for the template, e.g. `tools` or `enable_thinking`.

        Raises:
          ValueError: there is no template, it is malformed, or it refuses these messages.
        """
        if self.template is None:
            raise ValueError(
                "the tokenizer has no chat template; use the instruct model's tokenizer or save a "
                f"{TEMPLATE_FILE} next to its {TOKENIZER_FILE}"
            )
        variables = self.special_tokens | {"tools": None, "documents": None} | variables
        return chat_template.render(
            self.template,
            messages=list(messages),
            add_generation_prompt=add_generation_prompt,
            **variables,
        )

    def _special_id(self, kind: str) -> int:
        if kind not in self.special_tokens:
            raise ValueError(f"the tokenizer declares no {kind}; set it in {CONFIG_FILE}")
        return self.token_id(self.special_tokens[kind])

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


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = (),
    text_tokens: Sequence[str] = (),
    eos_token: str = "<|endoftext|>",
    bos_token: str | None = None,
    pad_token: str | None = None,
    template: str | None = None,
) -> Tokenizer:
    """Trains byte-level BPE (arXiv:1508.07909, over bytes as GPT-2) with digits split one by one.

    Every text can be encoded, and decodes to itself. The same texts in any order give the same
    tokenizer.

    Args:
      texts: the corpus.
      vocab_size: largest number of tokens, special ones and the 256 bytes included. A small corpus
        may offer fewer.
      special_tokens: control tokens such as `<|im_start|>`; decoding may skip them.
      text_tokens: strings that are one token each and yet plain text, such as `<think>`.
      eos_token: ends a sequence; a special token, as are `bos_token` and `pad_token`.
      template: jinja source of the chat template.

    Raises:
      ValueError: no texts, or a `vocab_size` without room for bytes and listed tokens.
    """
    named = {"eos_token": eos_token, "bos_token": bos_token, "pad_token": pad_token}
    named = {kind: token for kind, token in named.items() if token is not None}
    special = list(dict.fromkeys([*named.values(), *special_tokens]))
    least = 256 + len(special) + len(text_tokens)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size={vocab_size} is too small; 256 bytes and {least - 256} listed tokens need "
            f"at least {least}"
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A digit may take the space before it along, so that " 7" costs one token.
            pre_tokenizers.Split(tokenizers.Regex(r" ?\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(text_tokens),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_nonempty(texts), trainer)
    backend.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in text_tokens])
    config = named | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    return Tokenizer(backend, config, template)


def _nonempty(texts: Iterable[str]) -> Iterator[str]:
    empty = True
    for text in texts:
        empty = False
        yield text
    if empty:
        raise ValueError("there are no texts to train a tokenizer on")


def _content(value: Any) -> str | None:
    """A special token, which config files hold as text or as a dict."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


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
