"""Training of image networks and pretrained transformers."""
