"""Records and contracts. This room needs numpy and the standard library alone."""
