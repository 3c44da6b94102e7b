"""What is behind `captoken.adapters.issuance`: from the bytes of a request to what it asks for.

- `standing`: the policy and all that follows from it, as one request sees it;
- `form`: a request to the token endpoint, read: who shows which assertion as what;
- `certificates`: a workload's certificate, by whoever ended TLS;
- `reviews`: whether an issuer still stands by what it signed;
- `metadata`: what the service says of itself (RFC 8414);
- `answers`: bodies and answers, in JSON;
- `ends`: what providers tell of logins that end, what the overlay says of it, and leases;
- `starts`: a task that was planned: its row, its token, its record and the answer, in that order;
- `records`: what the audit trail says of exchanges;
- `rates`: how often one identity may ask.
"""
