"""Generators: sample responses from a model, whole responses at once or one step at a time.

`generator` and `steps` define the two interfaces. `jax_generator` and `jax_steps` implement them
with the model in this process, `text_steps` implements the second on top of any `Generator`.
"""
