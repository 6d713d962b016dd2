"""Mathematical answers: found in a response, read, and compared."""
