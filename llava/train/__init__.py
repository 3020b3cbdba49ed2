"""Training: arguments, data, the order of samples, the loop, and what is saved."""
