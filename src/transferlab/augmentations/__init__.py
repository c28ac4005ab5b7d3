"""Augmentations: random changes to training batches, on their device, with derived randomness.

Three kinds fit in one mapping, applied in its order:

- a module with ``draws``, how many uniform numbers a sample needs, and ``forward(images,
  uniforms)`` over (B, C, H, W) images in [0, 1] and (B, draws) numbers in [0, 1): all samples at
  once (``affine``, ``flip``);
- :class:`transferlab.augmentations.per_image.PerImage`, one of the above that hands every image
  to a library's transform, seeded by the sample's numbers;
- :class:`transferlab.augmentations.mixing.Mixing`, which blends the samples of a batch and their
  labels, seeded by the batch.
"""
