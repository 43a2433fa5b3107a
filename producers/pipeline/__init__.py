"""The six-step pipeline of two specialists: JSON files in and out, decisions between."""
