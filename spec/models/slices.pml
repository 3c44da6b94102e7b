/* A budget, and two processes that take slices of it: each reserves a part at the ledger, hands it out to its accesses, takes
   back what they did not use, and gives back the rest. It may die at any step. An access may be settled when its slice is gone. */

#define LIMIT 4
#define SIZE 2
#define MOST 5                       /* slices of one process, so that the search ends */

byte spent;                          /* the ledger */
byte cost;                           /* what accesses did cost in fact */
byte lost;                           /* what the dead had, and what was settled too late */
bool forked;

inline takes() {                     /* an access costs what was reserved for it */
    cost++;
#ifdef LIMIT_HOLDS
    assert(cost <= LIMIT)
#endif
}

proctype Process(byte left) {
    byte open, late, slices;         /* accesses out of this slice, and out of those before */
    bool has = left > 0;
    do
#ifdef CHECK_THEN_DEBIT
    :: !has && slices < MOST && spent + SIZE <= LIMIT -> atomic { spent = spent + SIZE; left = SIZE; has = true; slices++ }
#else
    :: atomic { !has && slices < MOST && spent + SIZE <= LIMIT -> spent = spent + SIZE; left = SIZE; has = true; slices++ }
#endif
    :: atomic { has && left > 0 -> left--; open++ }
    :: atomic { open > 0 -> open--; takes() }
    :: atomic { late > 0 -> late--; takes() }
    :: atomic { open > 0 -> open--; left++ }                 /* settled for nothing: back into its slice */
    :: atomic { late > 0 -> late--; lost++ }                 /* its slice is gone: it counts as spent */
#ifdef GIVES_BACK_WHAT_IS_OPEN
    :: atomic { has -> spent = spent - (left + open); left = 0; late = late + open; open = 0; has = false }
#else
    :: atomic { has -> spent = spent - left; left = 0; late = late + open; open = 0; has = false }
#endif
#ifdef A_CHILD_KEEPS_THEM
    :: atomic { has && !forked -> forked = true; run Process(left) }
#endif
    :: atomic { !has && open + late == 0 -> break }
    :: atomic { true -> lost = lost + left + open + late; break }  /* dies */
    od
}

init {
    atomic { run Process(0); run Process(0) };
    _nr_pr == 1;
#ifdef COUNT_IS_EXACT
    assert(spent == cost + lost)
#endif
#ifdef ALL_IS_SPENT
    assert(cost < LIMIT)
#endif
#ifdef SPENT_BY_THE_DEAD
    assert(!(spent == LIMIT && cost == 0))
#endif
}
