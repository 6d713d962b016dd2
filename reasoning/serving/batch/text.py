"""Turns tokens into text as they come, and finds stop strings in it."""

import codecs
import unicodedata
from collections.abc import Sequence

import numpy as np

from models.tokens.tokenizer import Tokenizer
from reasoning.generation.streaming import overlap
from reasoning.response import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN


class Vocabulary:
    """The bytes of every token of a model.

    Attributes:
      pieces: the bytes of each token; none for special tokens, which are no text.
      visible: bool `[V]`, the tokens that a reader sees: whole characters, not white space or tags.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        self.tokenizer = tokenizer
        added = tokenizer.backend.get_added_tokens_decoder()
        special = {i for i, token in added.items() if token.special} | set(tokenizer.stop_ids)
        self.raw = [tokenizer.token_bytes(i) for i in range(vocab_size)]
        self.pieces = [b"" if i in special else piece for i, piece in enumerate(self.raw)]
        self.visible = np.array([_is_visible(piece) for piece in self.pieces])

    def check(self, ids: Sequence[int]) -> None:
        """Raises `ValueError` if a prompt is empty, or holds a token outside the vocabulary."""
        if not ids:
            raise ValueError("a prompt is empty: give at least one token")
        if min(ids) < 0 or max(ids) >= len(self.raw):
            raise ValueError(f"a prompt holds a token outside the vocabulary of {len(self.raw)}")


def _is_visible(piece: bytes) -> bool:
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return False
    # A piece of a tag must not complete one.
    if any(mark in text for mark in '<>`"') or "\ufffd" in text:
        return False
    if text.strip() in (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE):
        return False
    return any(unicodedata.category(character)[0] in "LNPS" for character in text)


class Decoder:
    """Decodes one sample; a character comes once all its bytes have come."""

    def __init__(self, vocabulary: Vocabulary):
        self._pieces = vocabulary.pieces
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """Returns the text that a token completes."""
        return self._decode.decode(self._pieces[token])

    def finish(self) -> str:
        """Returns the text of bytes that form no whole character."""
        return self._decode.decode(b"", final=True)


class StopStrings:
    """Cuts a text before the first stop string to be complete, however the text is split."""

    def __init__(self, strings: Sequence[str]):
        self._strings = [each for each in strings if each]
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """Returns the text that certainly stands before any stop string."""
        if self.found or not text:
            return ""
        self._held += text
        # The match that is complete first wins, so it does not matter how the text is cut.
        matches = [
            (start + len(each), start)
            for each in self._strings
            if (start := self._held.find(each)) >= 0
        ]
        if matches:
            self.found = True
            out, self._held = self._held[: min(matches)[1]], ""
            return out
        kept = max((overlap(self._held, each) for each in self._strings), default=0)
        out = self._held[: len(self._held) - kept]
        self._held = self._held[len(out) :]
        return out

    def finish(self) -> str:
        """Returns the text that was held back."""
        out, self._held = self._held, ""
        return out
