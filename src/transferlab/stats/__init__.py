"""Pure functions on arrays: the verdict and what it rests on."""
