"""The one error users see.

Everything that can go wrong with a user's input, disk or choice raises `ThriftbitError`. Its message names the file or
tensor, says what is wrong and what to do, in one or two lines; the command line prints it without a traceback. Anything
else that escapes is a bug of ours and keeps its traceback.
"""


class ThriftbitError(Exception):
    """Something the user can mend. `exit_code` is what the command line leaves with."""

    exit_code = 1


class UsageError(ThriftbitError):
    """The request itself does not make sense (an unknown format, contradictory options)."""

    exit_code = 2
