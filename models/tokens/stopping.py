"""Finds stop strings in a compiled sampler, by a table of transitions over tokens."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class TokenAutomaton:
    """Finds strings in generated text, no matter how tokens split them.

    It is an Aho-Corasick automaton over bytes. The table already walks the bytes of every token, so
    the device needs one lookup for each token. Any match leads to the last state, which is final.

    Attributes:
      transitions: `[states, V]` int16, the state after reading a token in a state.
    """

    transitions: np.ndarray

    @classmethod
    def build(cls, strings: Sequence[str], token_bytes: Sequence[bytes]) -> "TokenAutomaton":
        """Compiles `strings` for a vocabulary given as the bytes of each token.

        Raises:
          ValueError: if there are no strings or one is empty.
        """
        patterns = [s.encode() for s in strings]
        if not patterns or not all(patterns):
            raise ValueError(f"stop strings {list(strings)!r} must be non-empty")
        by_byte = _byte_automaton(patterns)
        states, vocab = len(by_byte), len(token_bytes)
        lengths = np.array([len(b) for b in token_bytes])
        table = np.repeat(np.arange(states)[:, None], vocab, 1)
        for i in range(lengths.max(initial=0)):
            # Tokens that still have an i-th byte take one more step from every state.
            ids = np.flatnonzero(lengths > i)
            byte = np.array([token_bytes[int(t)][i] for t in ids])
            table[:, ids] = by_byte[table[:, ids], byte]
        return cls(table.astype(np.int16))

    @classmethod
    def of(cls, strings: Sequence[str], tokenizer: Any, vocab_size: int) -> "TokenAutomaton":
        """Compiles `strings` for a tokenizer and a model with `vocab_size` tokens."""
        return cls.build(strings, [tokenizer.token_bytes(i) for i in range(vocab_size)])


def _byte_automaton(patterns: Sequence[bytes]) -> np.ndarray:
    """Returns `[states, 256]` transitions; state 0 starts, the last one absorbs every match."""
    prefixes = sorted({p[:i] for p in patterns for i in range(len(p))}, key=len)
    index = {prefix: i for i, prefix in enumerate(prefixes)}
    accept = len(prefixes)
    table = np.full((accept + 1, 256), accept)
    for prefix, state in index.items():
        for byte in range(256):
            text = prefix + bytes([byte])
            if any(text.endswith(p) for p in patterns):
                continue
            suffixes = (text[i:] for i in range(len(text) + 1))
            table[state, byte] = index[next(s for s in suffixes if s in index)]
    return table
