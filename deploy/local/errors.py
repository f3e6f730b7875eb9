"""The one error the command line shows instead of a trace: a sentence that says what to do."""


class Refused(Exception):
    """The command can't go on. The text is one line: what is in the way, and what to do about it."""
