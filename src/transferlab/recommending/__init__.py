"""The command ``recommend``: candidates composed, scored, ranked and advised on."""
