"""Behind the adapters of HTTP: `asgi`, `fastapi`, `httpx`, `a2a`, and the two of discharges.

    origins      addresses, targets and public paths, each in one spelling
    exchange     ASGI: reading a body, sending a response, taking an application's place
    credentials  the text that a request shows, and where else a token could stand in it
    refusals     the responses that refuse a request
    asking       questions to a verifier from within an event loop
    routes       what a FastAPI application serves

`origins` and `exchange` know nothing of tokens, and `routes` nothing of guards.
"""
