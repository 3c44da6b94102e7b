"""Behind `captoken.adapters.gateway`: what a request means, whether it may go, and what goes.

    stated        the file, as it is written, and where in it something stands
    shapes        what an operation takes: parameters, and the shape of each
    described     operations from an OpenAPI description
    operations    the table of a service: which operation a request is
    strict        bytes of a request to values: refused, unless they can be read in one way alone
    written       values to the bytes of a request: what goes out
    reading       a whole request, judged by the table: the operation and its arguments
    credentials   where the key of a service comes from, and where it stands in a request
    seeking       whether an answer tells that key
    linked        the service's own addresses in an answer, as its clients reach it
    upstream      the one place that connects to a service, and sends

Only `upstream` opens a connection, and only to send what `written` made. Nothing of a client's
bytes gets there but by way of `reading`.
"""
