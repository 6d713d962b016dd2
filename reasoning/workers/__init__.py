"""Calls to code that takes untrusted input, in worker processes that can be killed."""
