"""The console: what agents are doing now, and an operator's hand on it, on a page of this machine.

    trail files -> index     an SQLite file, which can be made anew
    index       -> views     what the page asks for, as JSON
    operator    <- acts      narrow, end, revoke, lift: seen beforehand, with a reason
    app                      ASGI: who may ask, and how it is answered
    inspector                a page for one token, which nothing leaves

`captoken console` serves it. Needs the extra `console`.
"""
