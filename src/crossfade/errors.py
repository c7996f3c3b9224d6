"""The exception for requests that can't be carried out."""


class UserError(ValueError):
    """A request that can't be carried out. Its one line names the argument, what was expected, what came, what to do.

    The command line prints it without a traceback and exits with status 2.
    """
