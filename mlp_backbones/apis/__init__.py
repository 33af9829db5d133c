"""The model zoo, predictions and counts."""
