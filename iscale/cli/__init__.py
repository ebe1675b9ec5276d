"""The command line: one program, a verb per stage. Heavy imports wait until a command runs."""

from iscale.cli.app import main

__all__ = ["main"]
