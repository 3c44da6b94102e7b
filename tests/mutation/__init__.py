"""Mutation testing: small faults are made in the library, one at a time, and the tests have to see each."""
