"""The gateway: nginx configuration, its renderer, and the merged API document it serves."""
