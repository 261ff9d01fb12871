"""Rows that say the same as others, or hold an evaluation item."""
