"""Which slices of a CT volume are worth learning from: pure functions of arrays, no paths and no printing."""
