"""Policies: what trains, at which rate, pulled where. A strategy is a YAML that names some."""
