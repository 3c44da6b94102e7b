"""What is behind `captoken.adapters.postgres`. Nothing of it can be imported without that extra."""

from captoken._format.extras import extra

with extra("postgres"):
    from psycopg import capabilities as capabilities  # the newest of what is used of it
