"""Networks by name with known weights, and the layouts of checkpoints by which they are recognised."""
