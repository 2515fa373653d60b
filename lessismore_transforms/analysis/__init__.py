"""What networks have learned: the similarity of their layers."""
