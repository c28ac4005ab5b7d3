"""Backbones: bodies from timm, their weights, and their layer groups."""
