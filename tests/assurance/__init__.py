"""Every claim with its proof: the data of docs/assurance.md, and what holds it against the project."""
