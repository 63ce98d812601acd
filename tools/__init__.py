"""Programs that make pages of the repository."""
