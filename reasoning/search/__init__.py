"""Search methods: ways to spend more compute at inference time on an answer. One file per method.

Every method is called in the same way:

    method(policy, verifier, problems, budget, seed=0) -> [SearchResult]

    prompting          one greedy response, direct or with a chain of thought
    self_consistency   majority vote among samples; a verifier may weight or rank the votes
    best_of_n          the sample that a verifier scores highest
    beam               beam search over steps, guided by a process verifier
    dvts               diverse verifier tree search: independent subtrees
    lookahead          beam search that rolls each step out before it ranks the steps
    mcts               Monte-Carlo tree search over steps
    self_refine        one response, revised in turn; a verifier accepts or rejects each revision
    budget_forcing     one chain of thought, made longer or cut short
    adaptive           chooses method and budget by a problem's estimated difficulty

`interface` defines what every method takes and returns. `methods` is the table of methods: to add
one, write a module here and list it there. `common.evaluation` compares methods at equal compute.
"""
