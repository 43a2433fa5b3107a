"""How the words of a prompt are weighed: labelled queries, the fit, and its cross-validation."""
