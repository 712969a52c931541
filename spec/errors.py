"""The one exception that reaches a user as a line of text."""


class BpfnicError(Exception):
    """What was given can't be used. The message is one line that names the thing (file, section, symbol, instruction
    number); the command line prints it and exits with status 2."""
