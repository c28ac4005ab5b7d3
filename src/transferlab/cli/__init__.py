"""The doors: one file per command; parse, call, print."""

from transferlab.cli.main import main

__all__ = ["main"]
