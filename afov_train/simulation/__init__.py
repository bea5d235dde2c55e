"""A simulated street: the drive for those who have none at hand, with truth for evaluation."""
