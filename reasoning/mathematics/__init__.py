"""Finds mathematical answers in responses, reads them and compares them."""
