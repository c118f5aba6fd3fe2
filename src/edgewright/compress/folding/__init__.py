"""The steps of a processing as operators of the model's own graph."""
