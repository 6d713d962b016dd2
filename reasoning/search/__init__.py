"""Inference-time scaling: ways to spend compute on an answer, one file each.

    method(policy, verifier, problems, budget, seed=0) -> [SearchResult]

    prompting          direct, or with a chain of thought: one greedy response
    self_consistency   majority vote, weighted or ranked by a verifier
    best_of_n          the best sample, by any verifier
    beam               beam search over steps, guided by a process verifier
    dvts               diverse verifier tree search
    lookahead          beam search that ranks steps by what they lead to
    mcts               Monte-Carlo tree search over steps
    self_refine        sequential revision, accepted by a verifier
    budget_forcing     thinking made longer, or ended
    adaptive           method and budget by estimated difficulty

`interface` says what they take and give. `methods` is their table: to add one, write a module here
and name it there. `common.evaluation` compares methods at equal compute.
"""
