"""The HTTP side: parse, authorise, call, answer."""
