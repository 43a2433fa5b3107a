"""Floor 4: those who answer."""
