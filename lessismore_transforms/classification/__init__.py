"""Fine-tune an encoder on labelled pictures and say what it is worth: examples, metrics, statistics, tables."""
