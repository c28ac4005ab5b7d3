"""Datasets: what they hold, how they are decoded once, split and sampled."""
