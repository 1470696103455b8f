"""A request to delete rows from one deployed model."""
