"""Floor 2: where a decision goes and whether its answer will do. Values in, values out."""
