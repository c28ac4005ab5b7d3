"""Heads: the new last part of a model, a module from (B, F) features to (B, C) logits."""
