"""The paper's studies: what each runs, and its published numbers to set ours beside."""
