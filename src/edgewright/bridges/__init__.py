"""Steps from one program format to another."""
