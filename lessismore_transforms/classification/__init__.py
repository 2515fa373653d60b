"""Fine-tune an encoder on labelled pictures and measure how good it is: examples, metrics, statistics, tables."""
