"""Keeps CRMs, and any HTTPS endpoint, in step with a workspace's leads."""
