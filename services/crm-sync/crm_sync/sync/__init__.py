"""The worker's engine: what is due is claimed, sent within the connection's budget, and settled."""
