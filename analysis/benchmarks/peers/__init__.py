"""This package against other ways to small networks: equal wall-clock, cores, data, splits and recipe."""
