"""Distillations: a teacher answers, a student learns by one or more arms, a report compares."""
