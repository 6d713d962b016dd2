"""Turns texts into tokens and back for clients that count tokens, in the form of vLLM's server.

lm-evaluation-harness, for one, needs them to score continuations, and then no tokenizer of its own.
"""

from typing import Any

from reasoning.serving.models import Checkpoint
from reasoning.serving.requests import DetokenizeRequest, TokenizeRequest
from reasoning.serving.routes import Models


def tokenize(models: Models, request: TokenizeRequest) -> dict[str, Any]:
    """Returns the tokens of a text, or of a rendered conversation.

    Raises:
      KeyError: the model is unknown.
      ValueError: the chat template refuses the conversation.
    """
    checkpoint = _checkpoint(models, request.model)
    tokenizer = checkpoint.tokenizer
    if request.messages is not None:
        turns = [message.plain for message in request.messages]
        ids = checkpoint.prompt(turns, None, {}).ids
    elif request.add_special_tokens:
        ids = tokenizer.encode_prompts([request.prompt or ""])[0]
    else:
        ids = tokenizer.encode(request.prompt or "")
    return {"count": len(ids), "max_model_len": checkpoint.engine.columns, "tokens": ids}


def detokenize(models: Models, request: DetokenizeRequest) -> dict[str, Any]:
    """Returns the text of tokens, special ones included.

    Raises:
      KeyError: the model is unknown.
      ValueError: a token is outside the vocabulary.
    """
    raw = _checkpoint(models, request.model).vocabulary.raw
    if any(not 0 <= token < len(raw) for token in request.tokens):
        raise ValueError(f"tokens holds one outside the vocabulary of {len(raw)}")
    return {"prompt": b"".join(raw[token] for token in request.tokens).decode("utf-8", "replace")}


def about(models: Models) -> dict[str, Any]:
    """Returns the special tokens of the reasoner, its chat template and its context."""
    tokenizer = models.reasoner.tokenizer
    nothing = {"bos_token": None, "eos_token": None, "pad_token": None}
    return (
        nothing
        | tokenizer.special_tokens
        | {
            "chat_template": tokenizer.template,
            "max_model_len": models.reasoner.engine.columns,
        }
    )


def _checkpoint(models: Models, name: str | None) -> Checkpoint:
    return models.reasoner if name is None else models.checkpoint(name)
