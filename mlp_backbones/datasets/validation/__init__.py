"""What protects a run from broken files and annotations, before it starts and while it goes on."""
