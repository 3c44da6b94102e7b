"""What models write, too, that the guards refuse over the freight's tables: the code, the statement, and why.

Each of these runs without a guard. The pages name all of them (docs/sqlite.md, docs/postgres.md).
"""

from __future__ import annotations

Refused = list[tuple[str, str, str]]

SQLITE: Refused = [
    ("column", "SELECT s.* FROM main.shipments s", "what has the schema before it is the whole table"),
    ("column", "INSERT INTO clients (company, country) VALUES ('New', 'NO')", "SQLite does not tell which columns"),
    ("name", "SELECT rowid, company FROM clients", "the query that stands for the table has no rowid"),
    ("name", 'UPDATE clients SET tier = "gold" WHERE tier <> "gold"', "twice in quotes: one of the two could be a column of another query"),
    (
        "name",
        "UPDATE shipments SET status = (SELECT MAX(name) FROM regions WHERE id < level) FROM (SELECT 3 AS level) AS x RETURNING status",
        "in a query of its own a name can be of its tables, or of those around it",
    ),
    ("name", "UPDATE shipments SET status = level FROM (SELECT 3 AS level) RETURNING status", "the subquery has no name to put before it"),
    (
        "name",
        "UPDATE shipments SET status = plate FROM trips JOIN vehicles USING (plate) WHERE trips.shipment_id = shipments.id",
        "USING makes one column of two",
    ),
    ("unsupported", "UPDATE shipments SET status = kind FROM trips NATURAL JOIN vehicles WHERE trips.shipment_id = shipments.id", "no word says what NATURAL compares"),
    ("operation", "EXPLAIN QUERY PLAN SELECT * FROM clients", "another kind of statement"),
    ("operation", "PRAGMA table_info(clients)", "another kind of statement"),
    ("table", "SELECT name FROM sqlite_master WHERE type = 'table'", "a catalog"),
    ("table", "SELECT name FROM pragma_table_info('clients')", "a catalog"),
    ("operation", "SELECT changes()", "before the block has written, it tells of others"),
    ("operation", "SELECT last_insert_rowid()", "before the block has written, it tells of others"),
]

POSTGRES: Refused = [
    ("operation", "SELECT public.clients.company FROM public.clients", "a name of three parts"),
    ("operation", "SELECT count(*) FROM shipments TABLESAMPLE SYSTEM (100)", "TABLESAMPLE"),
    ("operation", "SELECT ctid, company FROM clients", "a system column"),
    (
        "operation",
        "INSERT INTO warehouses (code, name) VALUES ('OSL', 'x') ON CONFLICT (code) DO UPDATE SET name = EXCLUDED.name RETURNING id, (xmax = 0) AS inserted",
        "a system column",
    ),
    ("operation", "SELECT version()", "it tells of the server"),
    ("operation", "SELECT current_user, session_user", "it tells of the login"),
    ("operation", "SELECT current_database()", "it tells of the server"),
    ("operation", "SELECT pg_size_pretty(pg_total_relation_size('shipments'))", "it tells of all columns"),
    ("operation", "SELECT 'shipments'::regclass", "a type that names relations"),
    ("operation", "SELECT * FROM json_populate_record(null::clients, '{\"id\": 1}')", "the type has the hidden columns"),
    ("table", "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'", "a catalog"),
    ("table", "SELECT relname FROM pg_class", "a catalog"),
    ("operation", "EXPLAIN SELECT * FROM clients", "another kind of statement"),
    ("operation", "TRUNCATE alerts", "another kind of statement"),
    ("operation", "CREATE TEMP TABLE x AS SELECT 1", "another kind of statement"),
    ("operation", "SELECT * INTO TEMP y FROM clients", "another kind of statement"),
    ("operation", "SELECT nextval('clients_id_seq')", "it counts on, outside of the transaction"),
    ("operation", "SELECT pg_sleep(0)", "it keeps a process of the server busy"),
]

# PostgreSQL gives a whole row as a record without a type of its own, and psycopg that as a tuple (docs/postgres.md).
DIFFERENT = [
    "SELECT c FROM clients c ORDER BY c.id",
    "SELECT array_agg(c ORDER BY c.id) FROM clients c",
    "SELECT c, count(*) FROM clients c JOIN shipments s ON s.client_id = c.id GROUP BY c ORDER BY c",
]
