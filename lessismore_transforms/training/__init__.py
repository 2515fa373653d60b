"""What all trainings share: length, batches, numbers, checkpoints, logs, and how they end."""
