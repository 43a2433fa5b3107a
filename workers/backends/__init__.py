"""Ways to reach a model; each answers a batch."""
