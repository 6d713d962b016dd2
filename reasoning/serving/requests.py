"""What a request may hold: its fields, their ranges, and the schema that the API describes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.decoding.sampling import SamplingParams
from models.decoding.slot_sampler import ALTERNATIVES

MOST_CHOICES, MOST_STOPS = 16, 8
EXPLICIT, HIDDEN, SUMMARY = "explicit", "hidden", "summary"

_Stops = str | list[str] | None


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    model: str = Field(max_length=300)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1, description="0 keeps all tokens")
    min_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: _Stops = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    presence_penalty: float | None = Field(None, ge=0, le=0, description="only 0")
    frequency_penalty: float | None = Field(None, ge=0, le=0, description="only 0")
    ignore_eos: bool = False
    user: str | None = None

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: _Stops) -> _Stops:
        stops = [value] if isinstance(value, str) else value or []
        if len(stops) > MOST_STOPS or any(not 0 < len(each) <= 256 for each in stops):
            raise ValueError(f"give at most {MOST_STOPS} strings of 1 to 256 characters")
        return value

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def sampling(self) -> SamplingParams:
        """How tokens are drawn; OpenAI's defaults."""
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p or 0.0,
        )


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(strict=True, extra="ignore")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(strict=True, extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def plain(self) -> dict[str, str]:
        """The turn in the form that chat templates take."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return {"role": role, "content": self.content}
        return {"role": role, "content": "".join(part.text for part in self.content)}


class ChatRequest(_Request):
    """The body of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=ALTERNATIVES)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    thinking_token_budget: int | None = Field(None, ge=0, le=2**31 - 1)
    chat_template_kwargs: dict[str, Any] | None = None
    include_reasoning: bool | None = None
    reasoning_display: Literal["explicit", "hidden", "summary"] | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens of a response; None if the client does not say."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Request):
    """The body of `/v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(None, ge=0, le=2**31 - 1)
    logprobs: int | None = Field(None, ge=0, le=ALTERNATIVES)
    echo: bool | None = None

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts, one or several, as texts or as token ids."""
        prompt: Any = self.prompt
        if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
            return [prompt]
        return prompt


class TokenizeRequest(BaseModel):
    """The body of `/tokenize`: either a text or a conversation."""

    model_config = ConfigDict(strict=True, extra="ignore")
    model: str | None = Field(None, max_length=300)
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1, max_length=1000)
    add_special_tokens: bool = Field(True, description="whether a prompt gets its opening tokens")

    @model_validator(mode="after")
    def _one(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class DetokenizeRequest(BaseModel):
    """The body of `/detokenize`."""

    model_config = ConfigDict(strict=True, extra="ignore")
    model: str | None = Field(None, max_length=300)
    tokens: list[int]
