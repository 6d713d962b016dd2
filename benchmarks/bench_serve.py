"""Loads a running server with streaming clients and checks every answer against its prompt.

    python -m launch.run_serve --model=DIR --slots=64 --port=8000
    python -m benchmarks.bench_serve --url=http://127.0.0.1:8000 --clients=64 --seconds=60

Each answer at temperature 0 is compared with the answer that the same prompt got alone before the
load. The result: tokens per second alone and under load, time to the first token, time per token.
A server with `--slots=1` and one client tell what serving one by one can do at best: a step of many
slots takes longer, however many are in use.
"""

import argparse
import asyncio
import json
import time

import httpx

from benchmarks.sides import processor


def body(n, tokens):
    text = f"Problem {n}: what is {n} + {n * 7 % 31} * {n % 5 + 2}?"
    return {
        "model": "reasoner", "messages": [{"role": "user", "content": text}], "stream": True,
        "max_tokens": tokens, "temperature": 0, "stream_options": {"include_usage": True},
        # Answers of one length: short ones would measure requests, not tokens.
        "ignore_eos": True,
    }  # fmt: skip


async def ask(client, n, tokens):
    """(text, tokens, seconds to the first part, seconds of each further token)"""
    began, first, last, parts, used = time.perf_counter(), None, None, [], 0
    async with client.stream("POST", "/v1/chat/completions", json=body(n, tokens)) as answer:
        if answer.status_code != 200:
            await answer.aread()
            raise RuntimeError(f"status {answer.status_code}: {answer.text[:200]}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            part = json.loads(line[6:])
            if "error" in part:
                raise RuntimeError(part["error"]["message"])
            used = (part.get("usage") or {}).get("completion_tokens", used)
            for choice in part["choices"]:
                delta = choice["delta"]
                text = (delta.get("reasoning") or "") + "|" + (delta.get("content") or "")
                if text != "|":
                    last = time.perf_counter()
                    first = first or last
                    parts.append((delta.get("reasoning") or "", delta.get("content") or ""))
    whole = "".join(a for a, _ in parts) + "|" + "".join(b for _, b in parts)
    first, last = first or time.perf_counter(), last or time.perf_counter()
    return whole, used, first - began, (last - first) / max(1, used - 1)


def quantile(values, share):
    values = sorted(values)
    return round(values[min(len(values) - 1, int(share * len(values)))], 4)


async def measure(url, clients, seconds, tokens, prompts, key):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, timeout=300
    ) as client:
        expected, began, drawn = {}, time.perf_counter(), 0
        for n in range(prompts):
            text, used, _, _ = await ask(client, n, tokens)
            expected[n] = text, used
            drawn += used
        alone = drawn / (time.perf_counter() - began)
        began, end = time.perf_counter(), time.perf_counter() + seconds
        found, wrong, lost = [], 0, 0

        async def one(start):
            nonlocal wrong, lost
            n = start
            while time.perf_counter() < end:
                try:
                    answer = await ask(client, n % prompts, tokens)
                except (RuntimeError, httpx.HTTPError):
                    lost += 1
                    continue
                wrong += answer[:2] != expected[n % prompts]
                found.append(answer)
                n += 7

        await asyncio.gather(*(one(i) for i in range(clients)))
        took = time.perf_counter() - began
    rate = sum(each[1] for each in found) / took
    return {
        "clients": clients, "seconds": round(took, 1), "responses": len(found), "wrong": wrong,
        "lost": lost, "different_answers": len(set(expected.values())),
        "tokens_per_second_one_by_one": round(alone, 1), "tokens_per_second": round(rate, 1),
        "ratio": round(rate / alone, 2),
        "first_token_seconds": {"p50": quantile([e[2] for e in found], 0.5),
                                "p95": quantile([e[2] for e in found], 0.95)},
        "per_token_seconds": {"p50": quantile([e[3] for e in found], 0.5),
                              "p95": quantile([e[3] for e in found], 0.95)},
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=64, help="different prompts")
    parser.add_argument("--key", default="")
    parser.add_argument("--output", default="")
    given = parser.parse_args()
    found = asyncio.run(
        measure(given.url, given.clients, given.seconds, given.tokens, given.prompts, given.key)
    )
    found |= {"processor": processor(), "max_tokens": given.tokens}
    text = json.dumps(found, indent=2)
    print(text)
    if given.output:
        with open(given.output, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
