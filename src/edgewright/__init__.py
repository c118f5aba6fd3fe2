"""Edgewright: a trained model in, proven edge artifacts out."""
