"""Keeps track, on the host, of the place, row and columns that hold each path of a search.

A search names a path by its place. Each prompt has R places, and M rows that a step extends
together. The host needs these numbers, NumPy arrays, to check requests, and they come back with
every step anyway. The keys and values themselves are on the device (`models.paths.path_pool`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from models.config import ModelConfig
from models.decoding.requests import bucket
from models.layers.kv_cache import column_blocks

# `ROOT` is the place of a bare prompt; `EMPTY` is the length in a place that holds no path.
ROOT, EMPTY = -1, -1


@dataclasses.dataclass(frozen=True)
class Layout:
    """The sizes of a pool, which decide how it stores the paths of each prompt.

    Attributes:
      capacity: R, places of each prompt.
      width: M, rows of each prompt that a step extends.
      max_new_tokens: W, most tokens of a path.
      step_tokens: T, most tokens of a step.

    Raises:
      ValueError: a size below one.
    """

    capacity: int
    width: int
    max_new_tokens: int
    step_tokens: int

    def __post_init__(self) -> None:
        check_sizes(**dataclasses.asdict(self))

    @property
    def in_place(self) -> bool:
        """Whether the pool keeps the open rows instead of a copy of each path by its place."""
        return self.capacity <= self.width

    @property
    def spare(self) -> int:
        """How many columns holes may take before the pool closes them: a block of attention."""
        return min(self.max_new_tokens, column_blocks(self.max_new_tokens)[0])

    @property
    def columns(self) -> int:
        """O, the columns of open rows: whole blocks for a path, its holes and one more step."""
        columns = self.max_new_tokens + self.step_tokens + self.in_place * self.spare
        size, blocks = column_blocks(columns)
        return size * blocks


class Moves(NamedTuple):
    """Which paths move before the rows are extended, and after.

    Attributes:
      source: int32 `[P, M]`, what each row starts from: a row if the layout is in place, else a
        place.
      back: int32 `[P, R]`, the row that each place stores after the step, or -1 for none; `[P, 0]`
        if the layout is in place.
      past: int32 `[P, M]`, tokens of each row before the step.
    """

    source: Any
    back: Any
    past: Any


@dataclasses.dataclass(frozen=True)
class Places:
    """Lengths, rows and columns of the paths of P prompts.

    The numbers are immutable; an extension returns new ones. Arrays over paths are `[P, R + 1]`:
    one column for each place, and a last column, with index `ROOT`, for the bare prompt.

    Attributes:
      layout: the sizes of the pool.
      prefix_lengths: int32 `[P]`, columns of each prompt's keys and values that hold tokens.
      lengths: int32 `[P, R + 1]`, tokens of each path; `EMPTY` without a path; 0 for a prompt.
      row_of: int32 `[P, R + 1]`, the row that holds each path, if the layout is in place.
      valid: bool `[P, M, O]`, whether a column of a row holds a token.
      end: how many columns of the rows are in use.
    """

    layout: Layout
    prefix_lengths: np.ndarray
    lengths: np.ndarray
    row_of: np.ndarray
    valid: np.ndarray
    end: int

    @classmethod
    def of_prompts(cls, layout: Layout, lengths: np.ndarray, cached: np.ndarray) -> "Places":
        """Returns the numbers of prompts that have no paths yet.

        Args:
          lengths: int32 `[P]`, tokens of each prompt; 0 marks a row of padding.
          cached: int32 `[P]`, how many tokens of each prompt the cache holds.
        """
        of_paths = np.full((len(lengths), layout.capacity + 1), EMPTY, np.int32)
        of_paths[lengths > 0, ROOT] = 0
        valid = np.zeros((len(lengths), layout.width, layout.columns), bool)
        return cls(layout, cached, of_paths, np.zeros_like(of_paths), valid, 0)

    def fork(self, parents: np.ndarray, into: np.ndarray) -> tuple["Places", Moves]:
        """Puts `parents` into the rows and empties the places `into`.

        Args:
          parents, into: int32 `[P, M]`; see `PathSampler.extend`.

        Returns:
          The new numbers, and the moves that the device must make.
        """
        used, past = into >= 0, np.maximum(at(self.lengths, parents), 0)
        past = np.where(used, past, 0)
        lengths = put(self.lengths, into, np.full(into.shape, EMPTY))
        if self.layout.in_place:
            row_of, source = self._make_room(lengths, used)
            source = np.where(used, at(self.row_of, parents), source)
            valid = np.take_along_axis(self.valid, source[..., None], 1)
            valid &= (~used | (past > 0))[..., None]
            back, end = np.full((len(into), 0), -1), self.end
        else:
            row_of, source, end = self.row_of, np.maximum(parents, 0), int(past.max())
            valid = np.arange(self.valid.shape[-1]) < past[..., None]
            rows = np.broadcast_to(np.arange(into.shape[1]), into.shape)
            back = put(np.full(lengths.shape, -1), into, rows)[:, :ROOT]
        places = dataclasses.replace(self, lengths=lengths, row_of=row_of, valid=valid, end=end)
        return places, Moves(*(x.astype(np.int32) for x in (source, back, past)))

    def _make_room(self, lengths: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Moves paths that stay out of the rows that the step needs (`used [P, M]`).

        Returns:
          The new `row_of`, and the source `[P, M]` of each row.
        """
        row_of, source = self.row_of.copy(), np.tile(np.arange(used.shape[1]), (len(used), 1))
        held = lengths[:, :ROOT] > 0
        displaced = held & np.take_along_axis(used, row_of[:, :ROOT], 1)
        if not displaced.any():
            return row_of, source
        taken = used.copy()
        prompt, place = np.nonzero(held & ~displaced)
        taken[prompt, row_of[prompt, place]] = True
        free = np.argsort(taken, axis=1, kind="stable")
        prompt, place = np.nonzero(displaced)
        target = free[prompt, (np.cumsum(displaced, 1) - 1)[prompt, place]]
        source[prompt, target] = row_of[prompt, place]
        row_of[prompt, place] = target
        return row_of, source

    def extended(
        self, into: np.ndarray, past: np.ndarray, new: np.ndarray
    ) -> tuple["Places", np.ndarray | None]:
        """Returns the forked numbers after the rows were extended.

        Args:
          into: int32 `[P, M]`, the place of each row's path; -1 for a row without work.
          past: int `[P, M]`, tokens of each row before the step.
          new: int `[P, M]`, tokens that the step added to each row, from column `end` on.

        Returns:
          The new numbers. If holes have grown too large, also the order `[P, M, O]` into which the
          rows' columns must be brought to close them, else None.
        """
        lengths = put(self.lengths, into, past + new)
        if not self.layout.in_place:
            return dataclasses.replace(self, lengths=lengths), None
        column = np.arange(self.valid.shape[-1]) - self.end
        rows = np.broadcast_to(np.arange(into.shape[1]), into.shape)
        places = dataclasses.replace(
            self,
            lengths=lengths,
            row_of=put(self.row_of, into, rows),
            valid=self.valid | ((column >= 0) & (column < new[..., None])),
            end=self.end + int(new.max()),
        )
        longest = int(places.valid.sum(-1).max())
        if places.end <= longest + self.layout.spare:
            return places, None
        order = np.argsort(~places.valid, axis=-1, kind="stable").astype(np.int32)
        valid = np.take_along_axis(places.valid, order, -1)
        return dataclasses.replace(places, valid=valid, end=longest), order


def at(numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns the entries `[P, M]` of `numbers [P, R + 1]` for the paths in `places [P, M]`."""
    return numbers[np.arange(len(numbers))[:, None], places]


def put(numbers: np.ndarray, into: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns a copy of `numbers [P, R + 1]` with `values [P, M]` in the places `into [P, M]`.

    Values whose place is -1 are dropped.
    """
    numbers = numbers.copy()
    prompt, row = np.nonzero(into >= 0)
    numbers[prompt, into[prompt, row]] = values[prompt, row]
    return numbers


def check_places(
    lengths: np.ndarray, ended: np.ndarray, parents: Any, into: Any, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks a request to extend the paths `parents` and to store the results in `into`.

    Args:
      lengths: int32 `[P, R + 1]`, tokens of each path; see `Places`.
      ended: bool `[P, R + 1]`, whether a path has ended and so cannot be extended.
      parents, into: integers `[P, width]`; see `PathSampler.extend`.

    Returns:
      `parents` and `into` as int32 arrays.

    Raises:
      ValueError: an array has another shape, a place does not exist, a parent holds no path or one
        that has ended, or two paths would be stored in one place.
    """
    parents, into = np.asarray(parents, np.int32), np.asarray(into, np.int32)
    prompts, places = lengths.shape[0], lengths.shape[1] - 1
    for name, array in (("parents", parents), ("into", into)):
        if array.shape != (prompts, width):
            raise ValueError(f"{name} has shape {array.shape}; it must be {(prompts, width)}")
        if array.min() < -1 or array.max() >= places:
            bad = array[(array < -1) | (array >= places)][0]
            raise ValueError(f"{name} names place {bad}; places are 0..{places - 1}, or -1")
    ordered = np.sort(into, 1)
    if (twice := (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        prompt, row = np.argwhere(twice)[0]
        raise ValueError(
            f"two paths of prompt {prompt} would be stored in place {ordered[prompt, row]};"
            " give each path a place of its own"
        )
    for numbers, bad, why in ((lengths, EMPTY, "holds no path"), (ended, True, "has ended")):
        if (found := (into >= 0) & (at(numbers, parents) == bad)).any():
            prompt, row = np.argwhere(found)[0]
            raise ValueError(
                f"place {parents[prompt, row]} of prompt {prompt} {why}; it cannot be extended"
            )
    return parents, into


def check_sizes(**sizes: int) -> None:
    """Checks that every size is at least one.

    Raises:
      ValueError: a size below one.
    """
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")


def pad_prompts(
    prompts: Sequence[Sequence[int]], most: int, max_new_tokens: int, config: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Pads prompts to one array, as wide as the bucket of the longest prompt.

    Args:
      prompts: token ids of each prompt.
      most: P, rows of the result.
      max_new_tokens: tokens that must fit into the model's context behind each prompt.

    Returns:
      Tokens int32 `[P, S]` and lengths int32 `[P]`; rows without a prompt have length 0.

    Raises:
      ValueError: there are no prompts or too many, a prompt is empty, a token is outside the
        vocabulary, or a prompt leaves no room for `max_new_tokens` in the model's context.
    """
    if not 1 <= len(prompts) <= most:
        raise ValueError(f"{len(prompts)} prompts were given; there is room for 1..{most}")
    lengths = np.zeros(most, np.int32)
    lengths[: len(prompts)] = [len(prompt) for prompt in prompts]
    tokens = np.zeros((most, bucket(int(lengths.max()), least=16)), np.int32)
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {i} is empty; give at least a beginning-of-sequence token")
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise ValueError(
                f"prompt {i} holds a token outside the model's vocabulary of {config.vocab_size}; "
                "was it made by another tokenizer?"
            )
        if len(prompt) + max_new_tokens > config.max_length:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens; with {max_new_tokens} new ones it exceeds "
                f"the model's context of {config.max_length}: shorten it or lower max_new_tokens"
            )
        tokens[i, : len(prompt)] = prompt
    return tokens, lengths
