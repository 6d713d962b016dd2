"""Opens the connection to a server with OpenAI's interface."""

from typing import Any

from reasoning.server_client.api_client import ApiClient
from reasoning.server_client.api_limits import Ledger, RateLimiter, load_prices
from reasoning.server_client.openai_generator import OpenAIGenerator


def open_server(server: str, model: str, *, chat: bool = False, **settings: Any) -> OpenAIGenerator:
    """Returns a generator that asks a server.

    Args:
      server: the server's URL.
      model: the server's name for the model.
      chat: whether prompts are sent as a user's messages.
      **settings: `api_key_env`, `prices` (a JSON file), `max_cost`, `requests_per_minute`,
        `tokens_per_minute`, `concurrency`, `timeout_s`, `attempts`, as in
        `configs/teacher.py`; all are optional.

    Raises:
      ValueError, OSError: a bad setting, or prices that cannot be read.
    """
    prices = settings.pop("prices", "")
    ledger = Ledger(load_prices(prices, model) if prices else None, settings.pop("max_cost", None))
    limiter = RateLimiter(
        settings.pop("requests_per_minute", None), settings.pop("tokens_per_minute", None)
    )
    concurrency = settings.pop("concurrency", 16)
    client = ApiClient(server, ledger=ledger, limiter=limiter, **settings)
    return OpenAIGenerator(client, model, chat=chat, concurrency=concurrency)
