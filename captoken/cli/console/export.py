"""One task in one file, which opens without a server, and runs no script."""
