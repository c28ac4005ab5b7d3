"""Does transfer help or hurt here? Adaptation strategies, replicated fairly, with a verdict."""

__version__ = "0.1.0"
