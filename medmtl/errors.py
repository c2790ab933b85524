"""What can go wrong for a user, each in one line that names the thing and what to do."""

INCOMPLETE = 3  # exit code: done, but some input cannot be used, or is rejected where the user asked for that to count


class MedMTLError(Exception):
    """Something the user can mend; the command line prints it without a traceback.

    Args:
        what: what is wrong and where: the task, case, file, layer or key.
        fix: what to do about it.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what}: {fix}" if fix else what)


class DataError(MedMTLError):
    """A data root, case, image or label that cannot be used."""


class ConfigError(MedMTLError):
    """A configuration key or value that cannot be used."""


class RunError(MedMTLError):
    """A run folder or checkpoint that is missing, taken or incomplete."""
