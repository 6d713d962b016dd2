"""Budget forcing: thinking that goes on for longer, or ends, by what is put in the model's mouth.

s1 (arXiv:2501.19393): a chain that wants to end is made to go on with "Wait"; one that has no
budget left is closed, and the answer follows.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from models.decoding.sampling import SamplingParams
from reasoning.budget import Meter
from reasoning.generation.generator import Completion, fold_seed
from reasoning.problem import Problem
from reasoning.response import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN
from reasoning.search import interface
from reasoning.search.interface import Policy, SearchResult
from reasoning.verifiers import Verifier

CLOSING = f"{THINK_CLOSE}{ANSWER_OPEN}"
ANSWER_TOKENS = 32
GREEDY = SamplingParams(temperature=0.0)


@dataclasses.dataclass(frozen=True)
class BudgetForcing:
    """One chain, made to think `budget` times: `budget` - 1 endings are taken back.

    Attributes:
      wait: replaces the end of the chain.
    """

    wait: str = "Wait"

    def __post_init__(self):
        if not self.wait.strip():
            raise ValueError(f"wait={self.wait!r} says nothing: give a word, such as 'Wait'")

    def __call__(
        self,
        policy: Policy,
        verifier: Verifier | None,
        problems: Sequence[Problem],
        budget: int,
        *,
        seed: int = 0,
    ) -> list[SearchResult]:
        """See `SearchMethod`; needs no verifier."""
        del verifier
        interface.check_budget(budget, "budget_forcing")
        prompts = [policy.template(problem.question) for problem in problems]
        meters = interface.meters(policy, None, interface.prompt_lengths(policy, prompts))
        drafts: list[Completion] = [Completion("", [], None, "") for _ in problems]
        thinking = list(range(len(problems)))
        for turn in range(budget):
            drafts, thinking = _think(
                policy, prompts, drafts, thinking, meters, self.wait if turn else "",
                seed=fold_seed(seed, "think", turn),
            )  # fmt: skip
            if not thinking:
                break
        drafts = _forced_answers(policy, prompts, drafts, meters)
        chosen = [interface.candidate(policy, draft) for draft in drafts]
        spent = [meter.spent for meter in meters]
        return interface.results(problems, chosen, [[each] for each in chosen], spent)


def close_chains(
    policy: Policy,
    prompts: Sequence[str],
    completions: Sequence[Sequence[Completion]],
    meters: Sequence[Meter],
) -> list[list[Completion]]:
    """Completions whose chain was cut off, closed and answered; the others as they are."""
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
    text = policy.opening + text
    return THINK_OPEN in text and THINK_CLOSE not in text


def _think(policy, prompts, drafts, thinking, meters, wait, *, seed):
    """Goes on with the chains `thinking`; returns all drafts and the chains that wanted to end.

    A draft's text ends where its chain does, before the closing tag.
    """
    if wait:  # The first turn is as long as any response.
        room = _room(policy, prompts, drafts)
        thinking = [i for i in thinking if room[i] > 0]
    if not thinking:
        return drafts, []
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


def _forced_answers(policy, prompts, drafts, meters):
    """Closes every chain and has it answered, greedily; drafts without a chain stay."""
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


def _append(policy, draft, text):
    """The draft with text that was not sampled, whose tokens count as certain."""
    if not text:
        return draft
    tokenizer = getattr(policy.generator, "tokenizer", None)
    ids = tokenizer.encode(text) if tokenizer else []
    logprobs = None
    if draft.logprobs is not None:
        logprobs = np.concatenate([draft.logprobs, np.zeros(len(ids), np.float32)])
    return Completion(draft.text + text, [*draft.token_ids, *ids], logprobs, draft.finish)


def _continue(policy, prompts, meters, sampling, limit, stop, *, reread, seed=0):
    """One completion of each text, which is read again where `reread`."""
    if reread:
        for meter, length in zip(meters, interface.prompt_lengths(policy, prompts), strict=True):
            meter.prefill(length)
    groups = interface.sample(
        policy, prompts, 1, meters, seed=seed, sampling=sampling, max_new_tokens=limit, stop=[stop]
    )
    return [group[0] for group in groups]


def _room(policy, prompts, drafts):
    """Tokens that each draft may still take, with another turn and an answer, in the context."""
    if policy.model is None:
        return [policy.max_new_tokens] * len(prompts)
    texts = [prompt + draft.text for prompt, draft in zip(prompts, drafts, strict=True)]
    reserve = policy.max_new_tokens + 2 * ANSWER_TOKENS
    return [
        policy.model.max_length - reserve - length
        for length in interface.prompt_lengths(policy, texts)
    ]
