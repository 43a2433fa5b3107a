"""Floor 3: what is true."""
