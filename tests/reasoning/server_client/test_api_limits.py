"""Tests prices, spending caps and rate limits, without a server."""

import json

import numpy as np
import pytest

from reasoning.server_client.api_limits import Ledger, Prices, RateLimiter, load_prices


def test_rates_hold_over_every_minute(monkeypatch):
    """On a clock of its own, against a count over all windows."""
    clock, sent = [0.0], []
    monkeypatch.setattr("reasoning.server_client.api_limits.time.monotonic", lambda: clock[0])

    class Halt:
        def wait(self, seconds):
            clock[0] += seconds + 1e-6

    limiter = RateLimiter(requests_per_minute=10, tokens_per_minute=1000)
    draw = np.random.default_rng(0)
    for _ in range(100):
        tokens = int(draw.integers(1, 400))
        clock[0] += float(draw.exponential(0.5))
        limiter.acquire(tokens, Halt())
        sent.append((clock[0], tokens))
    for start, _ in sent:
        window = [tokens for when, tokens in sent if start <= when < start + 60]
        assert len(window) <= 10 and sum(window) <= 1000
    # Nor is it slower than it must be: some window is full.
    assert max(sum(t for w, t in sent if s <= w < s + 60) for s, _ in sent) > 600
    with pytest.raises(ValueError, match="1001 tokens exceeds tokens_per_minute=1000"):
        limiter.acquire(1001, Halt())


def test_prices_of_a_table(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"m": {"prompt": 0.5, "completion": 2}, "n": {"prompt": -1}}))
    assert load_prices(path, "m") == Prices(0.5, 2)
    for model, message in (("k", "no prices of model 'k': it has m, n"), ("n", "model 'n': ")):
        with pytest.raises(ValueError, match=message):
            load_prices(path, model)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: Ledger(max_cost=1.0), "max_cost=1 needs prices"),
        (lambda: Ledger(Prices(1, 1), max_cost=0.0), "max_cost=0 allows nothing"),
        (lambda: Prices(float("nan"), 1), "price of prompt tokens is nan"),
        (lambda: RateLimiter(requests_per_minute=0), "requests_per_minute=0"),
    ],
)
def test_bad_arguments(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()
