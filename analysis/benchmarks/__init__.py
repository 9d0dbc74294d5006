"""Measurements that take minutes and train networks; unlike the rest of the room they need torch."""
