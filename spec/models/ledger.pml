/* A token with a budget, and two children that were each promised all of it. Three calls race: two of one child, one of
   the other. Each reserves the most that it may cost, works, and settles what it did cost; it may die at any step, and its
   reservation may run out while it still works. */

#define LIMIT 3
#define MOST 2                       /* reserved for a call, which then costs 0, 1 or 2 */
#define CALLS 3
#define PARENT 2                     /* buckets: 0 and 1 are the children's */

mtype = { unknown, open, closed, run_out };

#ifdef TRACE                         /* each step of the store, and what it is then: for spec/models/traces.py */
#define tell(what) ; printf what
#define told_reserve ; printf("reserve %d %d %d %d %d %d\n", me, own, ok, spent[0], spent[1], spent[PARENT])
#else
#define tell(what)
#define told_reserve
#endif

byte spent[3];                       /* the ledger */
mtype state[CALLS] = unknown;
byte cost[3];                        /* what the work did cost in fact */
byte owed[3];                        /* what ought to be counted when all is over */

inline enough(own) {
    ok = spent[own] + MOST <= LIMIT && spent[PARENT] + MOST <= LIMIT
}

inline debit(own) {
    spent[own] = spent[own] + MOST;
    spent[PARENT] = spent[PARENT] + MOST;
    owed[own] = owed[own] + MOST;
    owed[PARENT] = owed[PARENT] + MOST
}

inline reserve(me, own) {            /* again with the same id: the same answer */
#if defined(CHECK_THEN_DEBIT)
    enough(own);
    atomic { if :: ok -> debit(own); state[me] = open :: else fi told_reserve }
#elif defined(ONE_BY_ONE)
    atomic { ok = spent[own] + MOST <= LIMIT; if :: ok -> spent[own] = spent[own] + MOST :: else fi };
    atomic {
        if
        :: ok ->
            ok = spent[PARENT] + MOST <= LIMIT;
            if
            :: ok -> spent[PARENT] = spent[PARENT] + MOST; owed[own] = owed[own] + MOST;
                     owed[PARENT] = owed[PARENT] + MOST; state[me] = open
            :: else
            fi
        :: else
        fi told_reserve
    }
#else
    d_step {
        if
#ifdef AGAIN_DEBITS_AGAIN
        :: state[me] != unknown -> spent[own] = spent[own] + MOST; spent[PARENT] = spent[PARENT] + MOST; ok = true
#else
        :: state[me] != unknown -> ok = true
#endif
        :: else -> enough(own); if :: ok -> debit(own); state[me] = open :: else fi
        fi told_reserve
    }
#endif
}

inline settle(me, own, took) {       /* what was not taken goes back, while the reservation is open */
    d_step {
        if
        :: state[me] == open ->
#ifndef SETTLES_TWICE
            state[me] = closed;
#endif
            spent[own] = spent[own] - (MOST - took);
            spent[PARENT] = spent[PARENT] - (MOST - took);
            owed[own] = owed[own] - (MOST - took);
            owed[PARENT] = owed[PARENT] - (MOST - took)
            tell(("settle %d %d %d 1 %d %d %d\n", me, own, took, spent[0], spent[1], spent[PARENT]))
        :: else tell(("settle %d %d %d 0 %d %d %d\n", me, own, took, spent[0], spent[1], spent[PARENT]))
        fi
    }
}

proctype Call(byte me, own) {
    byte took, left = MOST;
    bool ok;
    if
    :: reserve(me, own)
#ifdef FAILS_OPEN
    :: ok = true
#else
    :: ok = false                                /* the ledger cannot be reached */
#endif
    fi;
#ifndef ONE_BY_ONE
    if :: ok -> reserve(me, own) :: true fi;     /* the answer was lost, and it is asked again */
#endif
    if :: !ok -> goto over :: ok fi;
    do
    :: left > 0 -> atomic {
           left--; took++;
           cost[own] = cost[own] + 1; cost[PARENT] = cost[PARENT] + 1;
#ifdef LIMIT_HOLDS
           assert(cost[own] <= LIMIT && cost[PARENT] <= LIMIT)
#endif
       }
    :: break
    od;
    if
    :: goto over                                 /* dies */
    :: settle(me, own, took);
       if :: settle(me, own, took) :: true fi    /* the answer was lost */
    fi;
over: skip
}

proctype RunsOut() {
    byte one;
    do
    :: one < CALLS -> d_step {
           if
           :: state[one] == open ->
               state[one] = run_out;               /* spent for good */
#ifdef RUNNING_OUT_GIVES_BACK
               spent[PARENT] = spent[PARENT] - MOST;
               if :: one < 2 -> spent[0] = spent[0] - MOST :: else -> spent[1] = spent[1] - MOST fi
#endif
               tell(("out %d %d %d %d\n", one, spent[0], spent[1], spent[PARENT]))
           :: else
           fi;
           one++
       }
    :: one < CALLS -> one++
    :: break
    od
}

proctype Forgets() {                             /* what is over: some stores at once, others when they like */
    byte one;
    do
    :: one < CALLS -> d_step {
           if
           :: state[one] == run_out -> state[one] = unknown tell(("forgot %d %d %d %d\n", one, spent[0], spent[1], spent[PARENT]))
           :: else
           fi;
           one++
       }
    :: break
    od
}

init {
    atomic { run Call(0, 0); run Call(1, 0); run Call(2, 1); run RunsOut(); run Forgets() };
    _nr_pr == 1;
#ifdef COUNT_IS_EXACT
    assert(spent[0] == owed[0] && spent[1] == owed[1] && spent[PARENT] == owed[PARENT])
#endif
#ifdef ALL_IS_SPENT
    assert(cost[PARENT] < LIMIT)                 /* a call that settles leaves its rest to the others */
#endif
#ifdef SPENT_BY_THE_DEAD
    assert(!(spent[PARENT] == MOST && cost[PARENT] == 0))
#endif
}
