"""The code that runs inside the sandbox. It uses only the standard library; `zygote.main` starts it
in a process of its own.
"""
