"""Runs Python that a model wrote in a sandbox that the kernel enforces.

    with CodeRunner(num_workers=2) as runner:
        runner.run_tests("def add(a, b): return a + b", [CallTest("add(2, 3)", 5)])

Rewards use it for unit tests. Threat model: the program is hostile and knows this code. It must not
reach the network, files outside its scratch folder, other processes or the data of other programs.
It must not outlive its run or exceed its limits. It must not pass a test in any other way than by
producing the right output, so the expected values never enter its process.
"""

from reasoning.code_runner.judging import (
    CallTest,
    ExpressionTest,
    StdinTest,
    UnitTest,
    parse_unit_test,
)
from reasoning.code_runner.local import (
    CodeRunner,
    SandboxUnavailable,
    evaluate_expression,
    run_program,
    run_tests,
)
from reasoning.code_runner.remote import RemoteCodeRunner, RemoteSandboxError
from reasoning.code_runner.results import ExpressionResult, Limits, ProgramResult, TestResult

__all__ = [
    "CallTest",
    "CodeRunner",
    "ExpressionResult",
    "ExpressionTest",
    "Limits",
    "ProgramResult",
    "RemoteCodeRunner",
    "RemoteSandboxError",
    "SandboxUnavailable",
    "StdinTest",
    "TestResult",
    "UnitTest",
    "evaluate_expression",
    "parse_unit_test",
    "run_program",
    "run_tests",
]
