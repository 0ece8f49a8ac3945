"""The code of scripts/quickstart, after scripts/setup has run. Standard library only."""
