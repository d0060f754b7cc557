"""What only the lessons need: figures, exercises, experiments."""
