"""What the studies share: the run's folder, its parts, progress, the grid, what is measured, and the forecast."""
