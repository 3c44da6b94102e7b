"""Ten thousand servers, a hundred thousand agents and one operator, in simulated time: `python -m tests.benchmarks.simulation`.

    plan        the numbers it goes by, and the clock
    network     the bucket with its history, and the way of one reader or writer to it
    publishing  a real operator, which publishes for as long as the simulation lasts
    real        a real server: feed, verifier and tokens; a few of all
    model       what every server does at the bucket, without its verifier; all of them
    regions     budgets that are spent in several regions: real ledgers, verifiers and tokens
    report      what each part sees

Two kinds of servers. A *real* one runs the library: it fetches, applies deltas, and decides on real tokens. A *modelled* one keeps to
the same rules, and counts. Each real one is modelled too, with the same times: what it asked, what came and what it decided has
to be the same. Where it is not, the simulation fails.

Time is simulated: nobody waits, and what work costs in processor time is not in it. How long the network takes is drawn. The
figures are the same for the same seed.
"""
