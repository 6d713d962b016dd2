"""Trains a byte-level BPE tokenizer on texts."""

from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from models.tokens.tokenizer import Tokenizer


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

    The tokenizer can encode every text and decodes it exactly. The order of the texts does not
    change the result.

    Args:
      texts: the corpus.
      vocab_size: largest number of tokens, including special tokens and the 256 bytes. A small
        corpus may give fewer.
      special_tokens: control tokens such as `<|im_start|>`; decoding may skip them.
      text_tokens: strings that become one token each but stay plain text, such as `<think>`.
      eos_token: token that ends a sequence.
      bos_token: token that begins a sequence, or None.
      pad_token: token that fills up rows, or None; these three are special tokens.
      template: jinja source of the chat template.

    Raises:
      ValueError: if there are no texts, or `vocab_size` has no room for bytes and listed tokens.
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
            # A digit may include the space before it, so that " 7" is one token.
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
