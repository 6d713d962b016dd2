"""The running batch of a served model.

engine.py    the schedule of the compiled sampler: who gets a slot, and when
text.py      tokens to text, stop strings
response.py  one response as it comes: chain, answer, the budget of the chain
"""
