"""Frozen encoders compared by what is simple to learn from their features: regression, neighbours, few labels."""
