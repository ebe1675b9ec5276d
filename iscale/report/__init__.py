"""What a run will take, what it took, and what it found, for people."""
