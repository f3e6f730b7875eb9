"""The rules of connections, wishes and dead letters."""
