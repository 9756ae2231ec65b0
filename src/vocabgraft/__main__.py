"""python -m vocabgraft."""

from vocabgraft.cli import main

main()
