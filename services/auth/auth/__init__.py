"""Who may do what: users, their sessions, the tokens every service trusts."""
