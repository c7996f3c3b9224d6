"""The one exception that a user's request can cause."""


class UserError(ValueError):
    """A request that can't be carried out: one line that names the argument, what was expected, what came, what to do.

    The command line prints it without a traceback and exits with status 2.
    """
