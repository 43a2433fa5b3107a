"""EDDT: an engineering department whose people ask a model for every decision they take."""
