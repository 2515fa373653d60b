"""Networks by name with weights that are known, and whose checkpoint a file is."""
