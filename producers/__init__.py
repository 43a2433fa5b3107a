"""Floor 4: those who ask."""
