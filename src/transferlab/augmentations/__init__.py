"""Augmentations: random per sample, applied to the whole batch at once, on its device.

Each is a module with ``draws``, the number of uniform random numbers that a sample needs, and
``forward(images, uniforms)`` over (B, C, H, W) images in [0, 1] and (B, draws) numbers in [0, 1).
"""
