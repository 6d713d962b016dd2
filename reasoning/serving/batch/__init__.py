"""The running batch of a served model.

`engine` decides who gets a slot, and when. `text` turns tokens into text and finds stop strings.
`response` writes one response as its tokens come: chain, answer, the budget of the chain.
"""
