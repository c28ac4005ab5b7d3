"""Hydra discovers plugins in this namespace; what they do lives in transferlab.slurm."""
