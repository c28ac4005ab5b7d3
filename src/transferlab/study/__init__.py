"""Studies: arms tuned alike, replicated, compared with scratch."""
