"""Workflows: definitions as data, and the runs that carry leads through them."""
