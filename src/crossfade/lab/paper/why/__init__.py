"""Studies of why the fade works: gradient curves, Taylor's remainder, dynamics of training, escaping efficiency."""
