"""The code that runs inside the sandbox, in a process that `zygote.main` serves.

It uses only the standard library.
"""
