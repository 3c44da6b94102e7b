"""The form of tokens: bytes, text, names, times and errors. It knows no caveat and no store.

How a text becomes a token, one file after the other:

    text            the parts of a text, by their prefixes
    encoding        base64url and canonical JSON, each in its one spelling
    packet          a macaroon's fields
    root            the identifier of a token, which the issuer wrote
    chain           the tags over all of it, under a key

The rules of this room:

- One token has one text. What is read encodes back to the same bytes, or it is refused.
- What arrives is bounded before it is decoded, and decoded before it is hashed.
- A reader raises one kind of error, whatever the bytes are, and its message shows none of them.
- `primitives` alone touches hash functions and libsodium; `entropy` alone draws randomness.
- Nothing here asks a clock or opens a file. It imports from no other room.
"""
