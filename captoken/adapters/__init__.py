"""Adapters: one file for each framework or database. Import each by its full name."""
