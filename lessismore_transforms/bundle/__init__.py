"""What the configurations of all bundles share."""
