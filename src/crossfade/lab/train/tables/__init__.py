"""Training of many tiny networks on tables."""
