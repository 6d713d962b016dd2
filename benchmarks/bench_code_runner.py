"""Measures how many programs per second the code sandbox runs.

    python -m benchmarks.bench_code_runner [--workers=4] [--programs=200]

Each program runs in a fresh process with a fresh scratch folder, as it does for rewards. The
benchmark has three kinds of programs: a function that is called three times, a script that reads
standard input once, and an expression.
"""

import argparse
import os
import time

from reasoning.code_runner import (
    CallTest,
    CodeRunner,
    ExpressionTest,
    SandboxUnavailable,
    StdinTest,
    local,
)

FUNCTION = """
def primes(n):
    sieve = [True] * (n + 1)
    for i in range(2, int(n**0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = [False] * len(sieve[i * i :: i])
    return [i for i in range(2, n + 1) if sieve[i]]
"""
SCRIPT = """
import sys
numbers = list(map(int, sys.stdin.read().split()))
print(sum(numbers), max(numbers))
"""
JOBS = {
    "function": (
        FUNCTION,
        [
            CallTest("primes(10)", [2, 3, 5, 7]),
            CallTest("primes(1)", []),
            CallTest("primes(2)", [2]),
        ],
    ),
    "script": (SCRIPT, [StdinTest("1 2 3", "6 3")]),
    "expression": ("a * b + 3", [ExpressionTest({"a": 2, "b": 5}, 13)]),
}


def main() -> None:
    """Prints programs per second of each kind, for each isolation that this machine offers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--programs", type=int, default=200)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {arguments.workers} workers, {arguments.programs} programs")
    for isolation in local.ISOLATIONS:
        started = time.perf_counter()
        try:
            runner = CodeRunner(arguments.workers, isolation=isolation)
        except SandboxUnavailable as error:
            print(f"{isolation:16} {error}")
            continue
        with runner:
            print(f"{isolation:16} started in {time.perf_counter() - started:4.2f} s", end="")
            for name, job in JOBS.items():
                started = time.perf_counter()
                results = runner.run_tests_batch([job] * arguments.programs)
                rate = arguments.programs / (time.perf_counter() - started)
                assert all(result.all_passed for result in results), results
                print(f"   {name} {rate:4.0f}/s", end="")
            print()


if __name__ == "__main__":
    main()
