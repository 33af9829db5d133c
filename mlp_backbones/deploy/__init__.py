"""The deploy form of every model, and files that it is exported to."""
