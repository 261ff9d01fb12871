"""What rows cover: kinds of task, words, turns; and what is missing."""
