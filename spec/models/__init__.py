"""Machine-checked models of the protocol: who can make what, for any number of tokens and sessions. See README.md."""
