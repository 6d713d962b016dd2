"""The tiny world: problems so simple that a CPU trains a model to reason from scratch in minutes.

It has the domains that the stages of DeepSeek-R1 need, each in English and German: math, logic and
code with verifiers, knowledge, and small talk. Its pretraining corpus imitates the web: direct
answers, worked solutions without tags and some with tags, and among them some wrong steps, some
self-checks and some mixed languages. A base model trained on it reasons a little, but badly and
inconsistently. Beside these is countdown, where a search can prune, with a corpus of its own.

`domains` draws and solves problems, `countdown` those of its own, `language` holds their phrases,
`splits` separates training and test problems, `corpus` and `countdown_corpus` write the pretraining
documents, which `corpora` names, `planted_errors` makes solutions with known errors, and `chat`
judges small talk. `reasoning.tasks.tiny` offers the domains as tasks.
"""
