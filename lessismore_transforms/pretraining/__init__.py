"""What several pre-training methods share: views, heads, momentum, health, probe, export."""
