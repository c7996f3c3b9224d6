"""Training of LSTM classifiers on texts."""
