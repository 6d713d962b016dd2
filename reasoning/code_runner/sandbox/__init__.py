"""What runs on the far side of the sandbox wall: standard library only, started by `zygote.main` in
a process of its own.
"""
