"""The whole system on one machine without Docker: real servers on private ports, supervised processes."""
