"""Linear classifiers and small ReLU networks on tables, many at once."""
