"""Explain: what each runtime would make of a model, read from tables of its toolchain, before anything is converted."""

from edgewright.explain.explain import explain

__all__ = ["explain"]
