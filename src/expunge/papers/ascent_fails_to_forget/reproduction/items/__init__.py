"""The items of the paper, one file each or one for those that are read from the same runs."""
