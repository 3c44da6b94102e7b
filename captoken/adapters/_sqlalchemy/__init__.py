"""What is behind `captoken.adapters.sqlalchemy`, and cannot be imported without its extra."""

from captoken._format.extras import extra

with extra("sqlalchemy"):
    from sqlalchemy.dialects.postgresql import psycopg as psycopg  # the newest of what is used
