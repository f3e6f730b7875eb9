"""The leads service: everything about one lead, and the list of them."""
