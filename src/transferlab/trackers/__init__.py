"""Trackers: where a run's numbers go besides its own JSON lines. Each makes a Lightning logger."""
