"""Stores for used proofs, counts, snapshots and trails.

    ports           what each kind of store promises, as a Protocol
    memory          for one process, and for tests
    sqlite          for the processes of one machine
    valkey          for servers on many machines, by scripts on a Valkey or Redis server
    postgres        for servers on many machines, by functions in a database
    trail_file      the file of an audit trail

Import each by its own name: `postgres` needs psycopg, and nothing else here does.

The rules of this package:

- One call is one atomic step: of many calls at once, one is the first.
- A store that cannot know raises StoreError, and the request is denied. It never guesses.
- Once a store has answered, the change lasts as long as that store promises.
- Nothing becomes allowed again because something was forgotten: floors prevent that.
- No store ever contains a key, a token or a tag.
"""
