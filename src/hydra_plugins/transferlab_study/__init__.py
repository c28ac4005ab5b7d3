"""Hydra discovers plugins in this namespace; the study itself lives in transferlab.study."""
