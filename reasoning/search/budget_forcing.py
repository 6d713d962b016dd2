"""Budget forcing: make a chain of thought longer or end it by inserting text into it.

As in s1 (arXiv:2501.19393): when the model wants to end its chain too early, "Wait" replaces the
end and the model continues. When no budget is left, the closing tag is inserted and the model
answers. Other methods use `close_chains` for the second part.

A model that cannot make use of "Wait" loses the answer that it had. A vote over the answers after
each turn keeps it: it changes only if most turns agree on another one.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from models.decoding.sampling import SamplingParams
from reasoning import voting
from reasoning.budget import Meter
from reasoning.candidate import Candidate
from reasoning.generation.generator import Completion, fold_seed
from reasoning.problem import Problem
from reasoning.response import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN
from reasoning.search import interface
from reasoning.search.interface import Policy, SearchResult
from reasoning.tasks import Task
from reasoning.verifiers import Verifier

CLOSING = f"{THINK_CLOSE}{ANSWER_OPEN}"
ANSWER_TOKENS = 32
GREEDY = SamplingParams(temperature=0.0)


@dataclasses.dataclass(frozen=True)
class BudgetForcing:
    """Samples one chain of thought and replaces its first `budget` - 1 endings by `wait`.

    Attributes:
      wait: the text that replaces an ending.
      vote: whether the model answers after each turn, and the first answer is given unless more
        than half of the turns agree on another; otherwise it answers at the end alone, as in s1.
    """

    wait: str = "Wait"
    vote: bool = False

    def __post_init__(self) -> None:
        if not self.wait.strip():
            raise ValueError(f"wait={self.wait!r} is blank: give a word, such as 'Wait'")

    def __call__(
        self,
        policy: Policy,
        verifier: Verifier | None,
        problems: Sequence[Problem],
        budget: int,
        *,
        seed: int = 0,
    ) -> list[SearchResult]:
        """Answers each problem; see `SearchMethod`. Needs no verifier."""
        del verifier
        interface.check_budget(budget, "budget_forcing")
        prompts = [policy.template(problem.question) for problem in problems]
        meters = interface.meters(policy, None, interface.prompt_lengths(policy, prompts))
        drafts: list[Completion] = [Completion("", [], None, "") for _ in problems]
        thinking = list(range(len(problems)))
        answered: list[list[Completion]] = [[] for _ in problems]
        for turn in range(budget):
            before = drafts
            drafts, thinking = _think(
                policy, prompts, drafts, thinking, meters, self.wait if turn else "",
                seed=fold_seed(seed, "think", turn),
            )  # fmt: skip
            if self.vote:
                moved = [i for i, draft in enumerate(drafts) if draft is not before[i]]
                found = _forced_answers(
                    policy, [prompts[i] for i in moved], [drafts[i] for i in moved],
                    [meters[i] for i in moved],
                )  # fmt: skip
                for i, draft in zip(moved, found, strict=True):
                    answered[i].append(draft)
            if not thinking:
                break
        if not self.vote:
            answered = [[each] for each in _forced_answers(policy, prompts, drafts, meters)]
        candidates = [[interface.candidate(policy, each) for each in group] for group in answered]
        chosen = [
            _first_unless_most(policy.task, problem, group)
            for problem, group in zip(problems, candidates, strict=True)
        ]
        spent = [meter.spent for meter in meters]
        return interface.results(problems, chosen, candidates, spent)


def _first_unless_most(
    task: Task, problem: Problem, candidates: Sequence[Candidate]
) -> Candidate | None:
    """Returns the first candidate with an answer, or one that more than half of all agree with."""
    voters = [each for each in candidates if each.answer]
    if not voters:
        return voting.best(candidates)
    (groups,) = task.group_answers([problem], [[each.answer or "" for each in voters]])
    (most, count), *_ = collections.Counter(groups).most_common(1)
    return voters[groups.index(most) if 2 * count > len(candidates) else 0]


def close_chains(
    policy: Policy,
    prompts: Sequence[str],
    completions: Sequence[Sequence[Completion]],
    meters: Sequence[Meter],
) -> list[list[Completion]]:
    """Closes every chain of thought that was cut off and lets the model answer.

    Completions without an open chain are returned unchanged.

    Args:
      policy: the model.
      prompts: one for each problem.
      completions: the completions of each prompt.
      meters: one for each prompt; they count the tokens read again and the tokens generated.
    """
    flat = [
        (i, completion)
        for i, group in enumerate(completions)
        for completion in group
        if _chain_is_open(policy, completion.text)
    ]
    if not flat:
        return [list(group) for group in completions]
    closed = iter(
        _forced_answers(
            policy,
            [prompts[i] for i, _ in flat],
            [completion for _, completion in flat],
            [meters[i] for i, _ in flat],
        )
    )
    return [
        [next(closed) if _chain_is_open(policy, each.text) else each for each in group]
        for group in completions
    ]


def _chain_is_open(policy: Policy, text: str) -> bool:
    """Says whether a response has started a chain of thought and not closed it."""
    text = policy.opening + text
    return THINK_OPEN in text and THINK_CLOSE not in text


def _think(
    policy: Policy,
    prompts: Sequence[str],
    drafts: Sequence[Completion],
    thinking: list[int],
    meters: Sequence[Meter],
    wait: str,
    *,
    seed: int,
) -> tuple[list[Completion], list[int]]:
    """Continues some chains until they end or reach the limit of a response.

    Args:
      policy: the model.
      prompts: one for each problem.
      drafts: the chains so far, each without its closing tag.
      thinking: indices of the chains to continue.
      meters: one for each prompt.
      wait: text to insert before the model continues; empty in the first turn.
      seed: seed of the draws.

    Returns:
      All drafts, and the indices of the chains that the model ended.
    """
    if wait:  # The first turn always has room: its limit is that of any response.
        room = _room(policy, prompts, drafts)
        thinking = [i for i in thinking if room[i] > 0]
    if not thinking:
        return list(drafts), []
    started = [_append(policy, drafts[i], f" {wait}" if wait else "") for i in thinking]
    groups = _continue(
        policy,
        [prompts[i] + draft.text for i, draft in zip(thinking, started)],
        [meters[i] for i in thinking],
        policy.sampling,
        policy.max_new_tokens,
        THINK_CLOSE,
        reread=bool(wait),
        seed=seed,
    )
    drafts, ended = list(drafts), []
    for i, draft, more in zip(thinking, started, groups, strict=True):
        text, close, _ = more.text.partition(THINK_CLOSE)
        drafts[i] = Completion(
            draft.text + text,
            [*draft.token_ids, *more.token_ids],
            None,
            more.finish,
        )
        if close:
            ended.append(i)
    return drafts, ended


def _forced_answers(
    policy: Policy,
    prompts: Sequence[str],
    drafts: Sequence[Completion],
    meters: Sequence[Meter],
) -> list[Completion]:
    """Closes every open chain and samples an answer greedily; other drafts stay unchanged."""
    open_ = [i for i, draft in enumerate(drafts) if _chain_is_open(policy, draft.text)]
    if not open_:
        return list(drafts)
    started = [_append(policy, drafts[i], CLOSING) for i in open_]
    groups = _continue(
        policy,
        [prompts[i] + draft.text for i, draft in zip(open_, started)],
        [meters[i] for i in open_],
        GREEDY,
        min(ANSWER_TOKENS, policy.max_new_tokens),
        ANSWER_CLOSE,
        reread=True,
    )
    answered = list(drafts)
    for i, draft, more in zip(open_, started, groups, strict=True):
        logprobs = None
        if draft.logprobs is not None and more.logprobs is not None:
            logprobs = np.concatenate([draft.logprobs, more.logprobs])
        answered[i] = Completion(
            draft.text + more.text,
            [*draft.token_ids, *more.token_ids],
            logprobs,
            "stop" if ANSWER_CLOSE in more.text else "length",
        )
    return answered


def _append(policy: Policy, draft: Completion, text: str) -> Completion:
    """Returns the draft with inserted text; the inserted tokens get log-probability 0."""
    if not text:
        return draft
    tokenizer = getattr(policy.generator, "tokenizer", None)
    ids = tokenizer.encode(text) if tokenizer else []
    logprobs = None
    if draft.logprobs is not None:
        logprobs = np.concatenate([draft.logprobs, np.zeros(len(ids), np.float32)])
    return Completion(draft.text + text, [*draft.token_ids, *ids], logprobs, draft.finish)


def _continue(
    policy: Policy,
    prompts: Sequence[str],
    meters: Sequence[Meter],
    sampling: SamplingParams,
    limit: int,
    stop: str,
    *,
    reread: bool,
    seed: int = 0,
) -> list[Completion]:
    """Samples one completion of each text, of at most `limit` tokens.

    With `reread`, the meters also count the tokens of the texts, which the model reads again.
    """
    if reread:
        for meter, length in zip(meters, interface.prompt_lengths(policy, prompts), strict=True):
            meter.prefill(length)
    groups = interface.sample(
        policy, prompts, 1, meters, seed=seed, sampling=sampling, max_new_tokens=limit, stop=[stop]
    )
    return [group[0] for group in groups]


def _room(policy: Policy, prompts: Sequence[str], drafts: Sequence[Completion]) -> Sequence[int]:
    """Returns the context left for each draft after one more turn and an answer, in tokens."""
    if policy.model is None:
        return [policy.max_new_tokens] * len(prompts)
    texts = [prompt + draft.text for prompt, draft in zip(prompts, drafts, strict=True)]
    reserve = policy.max_new_tokens + 2 * ANSWER_TOKENS
    return [
        policy.model.max_length - reserve - length
        for length in interface.prompt_lengths(policy, texts)
    ]
