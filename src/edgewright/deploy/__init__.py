"""Bundles: a model with its processing, as the project that a platform's developer would have written."""
