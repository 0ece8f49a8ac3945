"""The code of scripts/lab. Standard library only: it runs on the system's python3, before any .venv exists."""
