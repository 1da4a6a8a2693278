"""The web pages that programs write, and the analysis behind each."""
