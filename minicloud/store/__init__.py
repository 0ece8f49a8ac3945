"""The state of the cloud: its tables, its SQL, and nobody else's. See store.py."""
