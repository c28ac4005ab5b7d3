"""What the last command came to: Hydra ignores return values, so it is left here."""

from dataclasses import dataclass


@dataclass
class Outcome:
    """Filled in by whatever Hydra called.

    Attributes:
        started: composition was done with; later errors are not the command line's.
        failure: what failed, in one line, or None.
        error: raised past Hydra, which would print lines of its own.
    """

    started: bool = False
    failure: str | None = None
    error: Exception | None = None

    def reset(self) -> None:
        """Forget the command before."""
        self.started, self.failure, self.error = False, None, None


class DetachedError(Exception):
    """The command ends here and well: what is left to do goes on without it.

    The message says where.
    """


outcome = Outcome()
