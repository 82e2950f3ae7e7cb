"""One small file for each framework; none is imported unless it is named, and none is needed by another."""
