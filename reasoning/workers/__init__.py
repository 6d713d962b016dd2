"""Runs functions on untrusted input in worker processes that can be killed."""
