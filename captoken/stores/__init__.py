"""Where used proofs, counts, snapshots and trails lie.

    ports           what each kind of store promises, as a Protocol
    memory          for one process, and for tests
    sqlite          for the processes of one machine
    valkey          for servers on many machines, by scripts on a Valkey or Redis server
    postgres        for servers on many machines, by functions in a database
    trail_file      the file of an audit trail

Each is imported by its own name: `postgres` needs psycopg, and nothing else here does.

The rules of this room:

- One call is one atomic step: of many that come at once, one is the first.
- A store that cannot know raises StoreError, and the request is denied. It never guesses.
- What it was told before it answered outlives what it says it outlives, and nothing less.
- Nothing is allowed anew because something was forgotten: floors see to that.
- No key, no token and no tag ever lies in a store.
"""
