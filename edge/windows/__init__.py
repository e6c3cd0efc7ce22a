"""Rows of a stream folded into windows: aggregates, assignment, and what is open."""
