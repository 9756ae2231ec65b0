"""Glue: the only functions that see both a recipe and a run. One module a phase; the libraries do the work."""
