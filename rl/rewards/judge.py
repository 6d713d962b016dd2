"""Rewards from an LLM judge, for the format of a response or for its free-form answer.

Use them for answers that no rule can verify (where DeepSeek-R1, arXiv:2501.12948, 2.3.4, uses
reward models) and for formats beyond tags. The judge is a model on a server or a local checkpoint:

    judge_answer?server=http://localhost:8000&model=Qwen/Qwen2.5-72B-Instruct
    judge_format?checkpoint=DIR&weight=0.2
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from models.checkpoint import load_model
from reasoning.generation.generator import Generator
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.response import after_chain, parse_response, whole_response
from reasoning.server_client.api_client import ApiClient
from reasoning.server_client.judge import ANSWER_RUBRIC, FORMAT_RUBRIC, Judge
from reasoning.server_client.openai_generator import OpenAIGenerator
from rl.rewards import RewardResult, Sample


@dataclasses.dataclass(frozen=True)
class _JudgeReward:
    """Common options of the two rewards.

    Attributes:
      server: url of a server with OpenAI's interface.
      model: the server's name of the model.
      checkpoint: directory or `hf://` name of a model, instead of a server.
      api_key_env: environment variable that holds the server's key.
      max_new_tokens: largest length of a judge's reply.
      max_chars: largest length of the judged text.

    Raises:
      ValueError: if neither or both of server and checkpoint are given, or a server lacks a model.
    """

    server: str = ""
    model: str = ""
    checkpoint: str = ""
    api_key_env: str = ""
    max_new_tokens: int = 512
    max_chars: int = 16_000

    def __post_init__(self) -> None:
        if bool(self.server) == bool(self.checkpoint):
            raise ValueError("a judge is one of server=URL and checkpoint=DIR: give one of them")
        if bool(self.server) != bool(self.model):
            raise ValueError("a judge on a server needs server=URL and model=NAME, others neither")

    def _judge(self, rubric: str) -> Judge:
        if self.server:
            generator, template, fits = _of_server(self.server, self.model, self.api_key_env)
        else:
            generator, template, fits = _of_checkpoint(self.checkpoint, self.max_new_tokens)
        return Judge(
            generator, rubric, template=template, max_new_tokens=self.max_new_tokens, fits=fits
        )


@dataclasses.dataclass(frozen=True)
class JudgeFormatReward(_JudgeReward):
    """Scores a response's format, 0..1; the judge sees a long response without its middle."""

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Returns one result for each sample, in order."""
        texts = [whole_response(sample.prompt, sample.completion) for sample in samples]
        cases = [{"response": self._shown(text)} for text in texts]
        found = self._judge(FORMAT_RUBRIC).assess(cases)
        return [RewardResult(each.score, each.reason) for each in found]

    def _shown(self, text):
        if len(text) <= self.max_chars:
            return text
        half = self.max_chars // 2
        return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"


@dataclasses.dataclass(frozen=True)
class JudgeAnswerReward(_JudgeReward):
    """Scores how well the final answer agrees with the reference, 0..1.

    The answer is the answer block, or without tags the text after the chain. The judge never sees
    the chain. A missing or too long answer earns 0 without a call of the judge.
    """

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Returns one result for each sample, in order."""
        results = [RewardResult(0.0, "there is no single answer to judge") for _ in samples]
        cases = {}
        for i, sample in enumerate(samples):
            answer = _answer(whole_response(sample.prompt, sample.completion))
            if len(answer) > self.max_chars:
                fault = f"the answer is longer than {self.max_chars} characters"
                results[i] = RewardResult(0.0, fault)
            elif answer:
                problem = sample.problem
                cases[i] = {
                    "question": problem.question, "reference": problem.answer, "answer": answer
                }  # fmt: skip
        found = self._judge(ANSWER_RUBRIC).assess(list(cases.values()))
        for i, judgement in zip(cases, found, strict=True):
            results[i] = RewardResult(judgement.score, judgement.reason)
        return results


def _answer(response: str) -> str:
    """Returns the text to judge; empty if answer blocks are repeated, nested or not closed."""
    visible = after_chain(response)
    if "<answer>" in visible or "</answer>" in visible:
        return parse_response(response).answer or ""
    return visible.strip()


# Parts of a judge: generator, prompt template, and a test whether a prompt fits.
_Parts = tuple[Generator, Callable[[str], str], Callable[[str], bool]]


@functools.cache
def _of_server(server: str, model: str, api_key_env: str) -> _Parts:
    generator = OpenAIGenerator(ApiClient(server, api_key_env=api_key_env), model, chat=True)
    generator.check()
    return generator, lambda instruction: instruction, lambda prompt: True


@functools.cache
def _of_checkpoint(checkpoint: str, max_new_tokens: int) -> _Parts:
    """Loads the judge; cached so that weights load and the sampler compiles only once."""
    model, params, tokenizer = load_model(checkpoint)

    def template(instruction: str) -> str:
        messages = [{"role": "user", "content": instruction}]
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True)

    def fits(prompt: str) -> bool:
        [ids] = tokenizer.encode_prompts([prompt])
        return len(ids) + max_new_tokens <= model.config.max_length

    return JaxGenerator(model, params, tokenizer), template, fits
