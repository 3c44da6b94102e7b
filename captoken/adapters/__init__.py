"""Adapters: one flat file per partner, imported by its full name."""
