"""What the compiled samplers are asked for: checks of prompts and limits, and shared sizes."""

from collections.abc import Sequence

from models.config import ModelConfig


def bucket(size: int, least: int = 1) -> int:
    """Rounds a size up to a power of two, so that similar sizes share one compiled program.

    Args:
      least: lower bound of the result.
    """
    return max(least, 1 << (size - 1).bit_length())


def check_prompts(
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    max_new_tokens: int,
) -> None:
    """Checks prompts before they are sampled from.

    Args:
      config: the model's config.
      prompts: token ids of each prompt.
      limits: most new tokens of each prompt's samples.
      max_new_tokens: the sampler's bound of the limits.

    Raises:
      ValueError: no prompt, an empty one, a token outside the vocabulary, a limit outside
        1..max_new_tokens, or a prompt that leaves no room in the model's context.
    """
    if not prompts:
        raise ValueError("no prompts were given; pass at least one")
    for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        if not len(prompt):
            raise ValueError(f"prompt {i} is empty; give at least a beginning-of-sequence token")
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise ValueError(
                f"prompt {i} holds token {max(max(prompt), -min(prompt))}, outside the model's "
                f"vocabulary of {config.vocab_size}; was it made by another tokenizer?"
            )
        if not 1 <= limit <= max_new_tokens:
            raise ValueError(
                f"limit {limit} of prompt {i} is not within 1..{max_new_tokens}; lower it or make"
                " the sampler with a larger max_new_tokens"
            )
        if len(prompt) + limit > config.max_length:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens; with {limit} new ones it exceeds the "
                f"model's context of {config.max_length}: shorten it or lower max_new_tokens"
            )
