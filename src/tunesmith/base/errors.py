"""The errors that reach users. Every message says what is wrong, where, and how to mend it."""


class TunesmithError(Exception):
    """Something the user can act on; the command line prints it without a traceback."""

    exit_code = 1


class UserError(TunesmithError):
    """The user's own input is at fault: a path, a recipe, a data file, an option."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe has faults; the message lists all of them."""


class DataError(UserError):
    """A data source can't be used at all (single bad rows go to the ledger instead)."""


class SupervisionError(TunesmithError):
    """A conversation can't be supervised exactly; `reason` is the ledger's short word for why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CheckpointError(TunesmithError):
    """A checkpoint can't be written, or none of those present can be read."""


class LimitBroken(TunesmithError):
    """The run finished, but a limit set in the recipe (forgetting, say) does not hold."""

    exit_code = 3


class Interrupted(TunesmithError):
    """Someone asked the run to stop (Ctrl-C, SIGTERM); it saved what it had and can go on."""

    exit_code = 130
