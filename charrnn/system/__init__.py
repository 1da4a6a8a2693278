"""The terminal, the command line, checks of values, and files that are never half-written."""
