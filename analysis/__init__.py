"""What happened in a run: figures and numbers from a run folder, without torch."""
