"""Data sets from their publishers: sizes and licences first, transfers that resume, checksums, safe unpacking."""
