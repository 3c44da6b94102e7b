"""Everything that one machine needs before there are servers, in one folder (docs/local.md).

    office = Office.open("state/")
    token = office.mint(subject="user:jane", agent="clerk", task="invoices", tools={"pay": {}})
    grant = office.verifier.authorize(token, Access(tool="pay", arguments={}))
    office.end_task("invoices")

An Office only creates and connects parts that you could also create yourself:

    keyring.json                       mints and verifies: Keyring
    operator.json, operator.json.seen  signs the overlay; the last snapshot that was seen: Operator
    overlay.db                         the overlay: SQLiteSnapshots
    office.db                          used proofs and counts: captoken.stores.sqlite
    audit.json, trail.jsonl            signs the trail; the trail: AuditTrail, TrailFile
    trail.jsonl.seen                   the last record that was seen in the trail
    office.json                        the list of files that must be there
    lock, .gitignore                   allow one process at a time; keep the files out of git

The rules of this file:

- All files are created together, once. If one is missing later, it is not created again, because
  that would silently forget what was revoked or spent.
- Only the owner can access the folder and its files. None of them is a symbolic link.
- Whoever has the folder can do everything. So the trail proves nothing against its owner.

POSIX only, because it locks with `flock`. Do not use it on a network file system.
"""

from captoken.local._office import Office

__all__ = ["Office"]
