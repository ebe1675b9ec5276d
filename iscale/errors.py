"""What can go wrong, as classes whose message says what, with which numbers, and what to do about it."""

from __future__ import annotations


class IscaleError(Exception):
    """A failure that the user can act on: shown as one message, without a traceback.

    Parameters
    ----------
    problem
        What is wrong: the file's name and the numbers that show it.
    remedy
        What to do about it.
    """

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n  {self.remedy}" if self.remedy else self.problem


class InputError(IscaleError):
    """A file or an option that the user gave cannot be used."""


class MemoryBudgetError(IscaleError):
    """Even the smallest region of a stage needs more memory than the budget.

    Attributes
    ----------
    needs, needed_bytes
        The stage and what it needs, as a clause and as a number; 0 where no plan was made.
    """

    needs: str = ""
    needed_bytes: int = 0


class StoreError(IscaleError):
    """The output store cannot be written, or is not one that this version reads."""


class StoreUnreachableError(StoreError):
    """Something of the store that should be there is not: it was lost, or this machine does not reach it."""


class ClusterError(IscaleError):
    """The workers, or the scheduler between them and this process, are gone; what is done is kept."""


class RegionsFailedError(IscaleError):
    """Some regions of a stage failed; the others are done and kept."""

    exit_code = 3


class InterruptedByUserError(IscaleError):
    """The user stopped the program."""

    exit_code = 130
