"""What is behind `captoken.adapters.sqlite`, from the text of a statement to the answer.

The rules, and what they are about, are in the docstring of that module. To read the guard from the
bottom:

- `lexer` cuts a statement into tokens, `scopes` finds the names where tables stand, `text` answers
  all other questions about the text;
- `watch` owns the authorizer: it compiles statements to see them, and runs them;
- `parts` lets SQLite see the columns that are granted, and no others; `updates` looks up the names
  of an UPDATE among them; `granted` asks which they are;
- `naming` says what tokens call a table, `opcodes` what an opcode does, `catalog` what is there;
- `account` holds the sums, and `events`, `programs`, `joins` and `names` each add to them;
- `planner` goes through these steps and says what a statement needs;
- `trial` tries a build of SQLite with statements of which the answer is known;
- `denials` says no without telling more than the text said, and `block` puts it together.

No file but the last two and `granted` knows a grant. What a statement touches does not depend on
who asks.
"""
