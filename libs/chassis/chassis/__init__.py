"""What every service process needs, and no domain."""
