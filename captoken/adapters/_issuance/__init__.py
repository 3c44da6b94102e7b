"""What is behind `captoken.adapters.issuance`: from the bytes of a request to what it asks for.

- `form`: a request to the token endpoint, read: who shows which assertion as what;
- `metadata`: what the service says of itself (RFC 8414).
"""
