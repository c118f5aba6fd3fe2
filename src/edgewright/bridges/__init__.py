"""Steps from one program format to another, for runtimes that do not read the source's own."""
