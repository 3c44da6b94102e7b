"""Reactions: what happens by itself when the behaviour of agents changes (docs/reactions.md).

    stated       the file of rules, as it is written
    rules        what a record comes to: a rule that is crossed has a cause
    watching     trails, followed; windows and causes, in one file, so that a restart goes on
    acting       causes become entries of the overlay, once each
    alerts       causes are told to a command, a webhook or OpenTelemetry, once each
    replaying    what rules would have done on a trail that is there
    command      `captoken react`

A reaction only takes rights away: all that it does is what `captoken.control.Operator` does.
"""
