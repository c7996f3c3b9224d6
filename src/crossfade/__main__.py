"""``python -m crossfade``."""

from crossfade.cli import main

main()
