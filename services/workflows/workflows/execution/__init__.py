"""Carrying runs out: claiming them under a lease, going from step to step, writing down every intent and result."""
