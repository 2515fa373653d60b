"""A trained network as a folder that others use: a MONAI bundle, or a folder for a model hub, with a card of facts."""
