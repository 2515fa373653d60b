"""What several pre-training methods share: batches, views, heads, schedules, health, checkpoints."""
