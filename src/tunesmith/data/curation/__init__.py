"""Stages that look at one row at a time: what is put right in it, and why it is dropped."""
