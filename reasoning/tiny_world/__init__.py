"""A world small enough that a model learns to reason in it from scratch, on a CPU, in minutes.

It has the domains that DeepSeek-R1's stages need: math, logic and code with verifiers, knowledge
and small talk, each in English and German. Its corpus is like the web: direct answers, worked
solutions without tags, some with tags, some wrong steps, some self-checks, some mixed languages.
A base model trained on it can reason a little, badly and inconsistently.
"""
