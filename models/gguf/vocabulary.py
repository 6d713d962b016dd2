"""Converts tokenizers from and to GGUF fields: byte-level BPE, special tokens, chat template."""

import json
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from gguf import TokenType
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from models.gguf.header import Header
from models.tokens.tokenizer import BYTE_OF_CHARACTER, Tokenizer

BYTE_LEVEL_BPE = "gpt2"
TEMPLATE = "tokenizer.chat_template"
_PREFIX = "tokenizer.ggml."
# Field with the id of a special token -> Hugging Face's name of the token.
_SPECIAL = {
    "bos_token_id": "bos_token",
    "eos_token_id": "eos_token",
    "padding_token_id": "pad_token",
    "unknown_token_id": "unk_token",
}
# llama.cpp stops a response at the ids in these fields, besides `eos_token_id`, and at control
# tokens with these names.
_FURTHER_STOPS = ("eot_token_id", "eom_token_id")
_STOP_NAMES = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>")

_CHARACTER_OF_BYTE = {byte: character for character, byte in BYTE_OF_CHARACTER.items()}


class _Splitting(NamedTuple):
    """A way to split text before BPE.

    Attributes:
      make: returns the pre-tokenizer.
      whole_words: whether a piece that is a token stays whole, regardless of the merges.
      nfc: whether text is first normalized to NFC.
      add_bos: whether `bos_token` begins a text if the file does not say so.
    """

    make: Callable[[], pre_tokenizers.PreTokenizer]
    whole_words: bool = False
    nfc: bool = False
    add_bos: bool = False


def _by_regex(digits: str) -> Callable[[], pre_tokenizers.PreTokenizer]:
    """Returns the splitting of Llama 3 or Qwen2, which differ in how many digits stay together."""
    regex = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )  # fmt: skip
    return lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _digits_apart() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


_LLAMA3 = _Splitting(_by_regex(r"\p{N}{1,3}"), whole_words=True, add_bos=True)
_QWEN2 = _Splitting(_by_regex(r"\p{N}"), nfc=True)
# Keys are names in `tokenizer.ggml.pre`. Exports write the first name of a splitting.
SPLITTINGS = {
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "smollm": _Splitting(_digits_apart),
    "gpt-2": _Splitting(lambda: pre_tokenizers.ByteLevel(add_prefix_space=False)),
}


def tokenizer_from_gguf(header: Header) -> Tokenizer:
    """Builds the tokenizer that a file describes, with special tokens, stop ids and chat template.

    Raises:
      ValueError: if a field is missing or malformed, or the tokenizer is not byte-level BPE with
        one of `SPLITTINGS`; the message is one line that names the file.
    """
    kind = header.text(f"{_PREFIX}model")
    if kind != BYTE_LEVEL_BPE:
        raise ValueError(
            f"{header.path}: {_PREFIX}model={kind!r} is not supported; only byte-level BPE"
            f" ({BYTE_LEVEL_BPE!r}) is"
        )
    splitting = SPLITTINGS.get(name := header.text(f"{_PREFIX}pre"))
    if splitting is None:
        raise ValueError(
            f"{header.path}: {_PREFIX}pre={name!r} is not supported; only {', '.join(SPLITTINGS)}"
            " are"
        )
    tokens = header.texts(f"{_PREFIX}tokens")
    types = _types(header, len(tokens))
    backend = _backend(header, tokens, types, splitting)
    special = _special_tokens(header, tokens)
    _add_bos_and_eos(header, backend, special, splitting)
    template = header.text(TEMPLATE) if TEMPLATE in header.fields else None
    config = special | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    return Tokenizer(backend, config, template, _stop_ids(header, tokens, types))


def fields_of_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """Returns the GGUF fields of a tokenizer by their full names.

    Args:
      tokenizer: the tokenizer to describe.
      vocab_size: vocabulary size of the model; ids without a token are written as unused.

    Raises:
      ValueError: if llama.cpp cannot express the tokenizer.
    """
    state = json.loads(tokenizer.backend.to_str())
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    tokens = [f"[PAD{number}]" for number in range(vocab_size)]
    types = [int(TokenType.UNUSED)] * vocab_size
    for token, number in vocabulary.items():
        tokens[number], types[number] = token, int(TokenType.NORMAL)
    for added in state["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], int(kind)
    fields: dict[str, Any] = {
        "model": BYTE_LEVEL_BPE,
        "pre": _name_of_splitting(state),
        "tokens": tokens,
        "token_type": types,
        "merges": [
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in state["model"]["merges"]
        ],
    }
    for field, token in _SPECIAL.items():
        if token in tokenizer.special_tokens:
            fields[field] = tokenizer.token_id(tokenizer.special_tokens[token])
    eos = fields.setdefault("eos_token_id", tokenizer.stop_ids[0])
    fields |= _further_stops(tokenizer, tokens, types, eos)
    before, (fronted,) = tokenizer.encode("a"), tokenizer.encode_prompts(["a"])
    framed = tokenizer.backend.encode("a", add_special_tokens=True).ids
    fields["add_bos_token"] = fronted == [fields.get("bos_token_id"), *before]
    fields["add_eos_token"] = framed[-len(before) - 1 :] == [*before, eos]
    fields["add_space_prefix"] = False
    named = {f"{_PREFIX}{field}": value for field, value in fields.items()}
    return named if tokenizer.template is None else named | {TEMPLATE: tokenizer.template}


def _further_stops(
    tokenizer: Tokenizer, tokens: Sequence[str], types: Sequence[int], eos: int
) -> dict[str, int]:
    """Returns fields for stop ids other than `eos` and the tokens in `_STOP_NAMES`."""
    further = [
        number
        for number in tokenizer.stop_ids
        if number != eos
        and not (tokens[number] in _STOP_NAMES and types[number] == TokenType.CONTROL)
    ]
    if len(further) > len(_FURTHER_STOPS):
        raise ValueError(
            f"the tokenizer cannot be written as GGUF: it has {len(further)} ids besides"
            f" eos_token_id that end a response, and the file has room for {len(_FURTHER_STOPS)}"
        )
    return dict(zip(_FURTHER_STOPS, further))


def _types(header: Header, count: int) -> list[int]:
    name = f"{_PREFIX}token_type"
    types = header.fields.get(name)
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or len(types) != count:
        raise ValueError(
            f"{header.path}: {name} is not a list of {count} whole numbers, one for each token"
        )
    if unknown := set(types.tolist()) - set(map(int, TokenType)):
        raise ValueError(f"{header.path}: {name} holds {min(unknown)}, which is no type of a token")
    return types.tolist()


def _backend(
    header: Header, tokens: Sequence[str], types: Sequence[int], splitting: _Splitting
) -> tokenizers.Tokenizer:
    vocabulary: dict[str, int] = {}
    for number, (token, kind) in enumerate(zip(tokens, types)):
        if kind == TokenType.UNUSED:
            continue
        if kind == TokenType.NORMAL and not set(token) <= BYTE_OF_CHARACTER.keys():
            # Some converters write such a token as plain text.
            token = "".join(_CHARACTER_OF_BYTE[byte] for byte in token.encode())
        if token in vocabulary:
            raise ValueError(
                f"{header.path}: {_PREFIX}tokens has {token!r} twice, as {vocabulary[token]} and"
                f" {number}"
            )
        vocabulary[token] = number
    merges = []
    for merge in header.texts(f"{_PREFIX}merges"):
        left, space, right = merge.partition(" ")
        if not (left and right) or any(
            part not in vocabulary for part in (left, right, left + right)
        ):
            raise ValueError(
                f"{header.path}: {_PREFIX}merges holds {merge!r}, which does not join two tokens to"
                " a third"
            )
        merges.append((left, right))
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, ignore_merges=splitting.whole_words)
    )
    backend.pre_tokenizer = splitting.make()
    if splitting.nfc:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    for kind, special in ((TokenType.CONTROL, True), (TokenType.USER_DEFINED, False)):
        added = [
            tokenizers.AddedToken(token, normalized=False, special=special)
            for token, each in zip(tokens, types)
            if each == kind and token
        ]
        (backend.add_special_tokens if special else backend.add_tokens)(added)
    return backend


def _token_id(header: Header, field: str, count: int) -> int | None:
    name = f"{_PREFIX}{field}"
    if name not in header.fields:
        return None
    if (number := header.integer(name, least=0)) >= count:
        raise ValueError(f"{header.path}: {name}={number}, but there are {count} tokens")
    return number


def _special_tokens(header: Header, tokens: Sequence[str]) -> dict[str, str]:
    numbers = {name: _token_id(header, field, len(tokens)) for field, name in _SPECIAL.items()}
    return {name: tokens[number] for name, number in numbers.items() if number is not None}


def _stop_ids(header: Header, tokens: Sequence[str], types: Sequence[int]) -> list[int]:
    """Returns the ids that end a response besides the `eos_token`."""
    stated = [_token_id(header, field, len(tokens)) for field in _FURTHER_STOPS]
    named = [
        number
        for number, (token, kind) in enumerate(zip(tokens, types))
        if kind == TokenType.CONTROL and token in _STOP_NAMES
    ]
    return [number for number in (*stated, *named) if number is not None]


def _add_bos_and_eos(
    header: Header,
    backend: tokenizers.Tokenizer,
    special: Mapping[str, str],
    splitting: _Splitting,
) -> None:
    """Sets the tokens that the tokenizer puts around a text; see `Tokenizer.encode_prompts`."""
    parts, used = ["$A"], []
    for name, default, place in (("bos", splitting.add_bos, 0), ("eos", False, 2)):
        if not header.flag(f"{_PREFIX}add_{name}_token", default):
            continue
        if (token := special.get(f"{name}_token")) is None:
            raise ValueError(
                f"{header.path}: {_PREFIX}add_{name}_token is true, but there is no"
                f" {_PREFIX}{name}_token_id"
            )
        parts.insert(place, token)
        used.append((token, backend.token_to_id(token)))
    if used:
        backend.post_processor = processors.TemplateProcessing(single=parts, special_tokens=used)


def _name_of_splitting(state: Mapping[str, Any]) -> str:
    """Returns llama.cpp's name for the way a tokenizer splits text.

    Args:
      state: the tokenizer's parsed `tokenizer.json`.
    """
    model, normalizer = state["model"], state.get("normalizer")
    unusual = [
        name
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        if model.get(name)
    ]
    if model["type"] != "BPE" or unusual:
        raise ValueError(
            "the tokenizer cannot be written as GGUF: it is not plain byte-level BPE"
            f" ({', '.join([model['type'], *unusual])})"
        )
    for added in state["added_tokens"]:
        if any(added[name] for name in ("lstrip", "rstrip", "single_word")):
            raise ValueError(
                f"the tokenizer cannot be written as GGUF: its token {added['content']!r} takes the"
                " white space beside it along, or stands for whole words only"
            )
    if normalizer and normalizer.get("normalizers") != [] and normalizer["type"] != "NFC":
        raise ValueError(
            f"the tokenizer cannot be written as GGUF: llama.cpp has no {normalizer['type']} that"
            " changes text before it is split"
        )
    found = _plain(state["pre_tokenizer"])
    whole_words = bool(model.get("ignore_merges"))
    for name, splitting in SPLITTINGS.items():
        if found == _plain(_state(splitting.make())) and whole_words == splitting.whole_words:
            return name
    added = {each["content"] for each in state["added_tokens"]}
    if found == _plain(_state(_trained_here())) and _digits_stand_alone(model["vocab"], added):
        return "gpt-2"
    raise ValueError(
        "the tokenizer cannot be written as GGUF: llama.cpp has no name for how it splits text; it"
        f" has for {', '.join(SPLITTINGS)}"
    )


def _trained_here() -> pre_tokenizers.PreTokenizer:
    """Returns the splitting of `models.tokens.tokenizer_training.train_bpe`."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(r" ?\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _digits_stand_alone(vocabulary: Mapping[str, int], added: Set[str]) -> bool:
    """Returns whether GPT-2's splitting gives the same tokens as `_trained_here` for digits 0-9.

    GPT-2 keeps digits together and splits off the last character of white space before a digit. The
    tokens are still the same if no token joins a digit to more than the space before it, and every
    token of several white-space characters ends in a plain space.
    """
    space, *others = (_CHARACTER_OF_BYTE[ord(character)] for character in " \t\n\r\v\f")
    for token in vocabulary.keys() - added:
        if len(token) > 1 and set(token) <= {space, *others} and token[-1] != space:
            return False
        if set(token) & set("0123456789") and len(token.removeprefix(space)) > 1:
            return False
    return True


def _state(part: Any) -> Any:
    return json.loads(part.__getstate__())


def _plain(state: Any) -> Any:
    """Returns a pre-tokenizer's state without the fields that do not change its pieces."""
    if isinstance(state, Mapping):
        return {key: _plain(value) for key, value in state.items() if key != "trim_offsets"}
    return [_plain(each) for each in state] if isinstance(state, list) else state
