"""What reduction changes inside a network: similarity of layers, maps of features, attention."""
