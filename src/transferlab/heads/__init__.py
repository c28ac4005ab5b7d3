"""Heads: the new last part of a model, a module from features to (B, C) logits.

A head is built as ``Head(in_features, num_classes, **options)``. What it may say of itself:

``takes``
    ``"pooled"`` (the default): it is given (B, F) features. ``"map"``: it is given the unpooled
    output of the backbone's ``forward_features``, is built with one argument more, ``layout``
    (:class:`transferlab.heads.tokens.MapLayout`), and brings any layout to tokens by
    :func:`transferlab.heads.tokens.to_tokens`.
``gradient``
    False where the head passes no gradient on to the features (nearest neighbours): it only goes
    with a frozen backbone. The default is True.
``refit(features, labels)``
    fits the head in closed form to the (N, F) features and (N,) labels of the whole training set;
    called before training, before each validation and at the end.
``grows``
    names of buffers whose size follows from the data; the head loads them in any size.
"""
