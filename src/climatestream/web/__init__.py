"""The embedded page: a server on this machine, and what it shows."""
