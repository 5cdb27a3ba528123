"""The demo: the real service on embedded parts, killed and verified before your eyes."""
