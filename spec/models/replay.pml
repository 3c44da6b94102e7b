/* One proof, sent any number of times to two servers with one replay store. A server reads its clock, looks whether the
   proof is in time, and asks the store some time later. The store may be down; and either it once loses all that it
   remembers, or the clock is once set back: a store that loses its memory has nothing but the clock to go by. */

#define PAST 1                       /* how old a proof may be, and how far ahead of the clock */
#define AHEAD 1
#define LATEST 6

byte now = 2, issued = 3;
byte floor;                          /* of the store: what was issued until then is refused */
bool known, down;                    /* is the proof remembered; can the store be reached */
byte accepted;

#ifdef TRACE                         /* each step of the store, and what it is then: for spec/models/traces.py */
#define tell(what) ; printf what
#else
#define tell(what)
#endif

inline forget(until) {
    if
    :: until > floor ->
#ifndef FORGETS_WITHOUT_A_FLOOR
        floor = until;
#endif
        if :: issued <= until -> known = false :: else fi
    :: else
    fi
}

inline add(t) {
#ifdef CHECK_THEN_ADD
    d_step { forget(t - PAST - 1); first = issued > floor && !known };
    d_step { known = true tell(("add %d %d %d %d\n", t, first, known, floor)) }
#else
    d_step { forget(t - PAST - 1); first = issued > floor && !known; if :: first -> known = true :: else fi
             tell(("add %d %d %d %d\n", t, first, known, floor)) }
#endif
}

active [2] proctype Server() {
    byte t, sent;
    bool first;
    do
    :: sent < 2 ->
        sent++;
        t = now;
        if
        :: issued + PAST >= t && issued <= t + AHEAD ->
            if
#ifdef FAILS_OPEN
            :: down -> first = true
#else
            :: down -> first = false
#endif
            :: !down -> add(t)
            fi;
            if :: first -> accepted++ :: else fi;
#ifdef ONCE
            assert(accepted <= 1);
#endif
#ifdef ACCEPTED
            assert(accepted == 0);
#endif
            first = false; t = 0
        :: else
        fi
    :: break
    od
}

active proctype World() {
    bool once;
    do
    :: now < LATEST -> now++
    :: d_step { forget(now - PAST - 1) tell(("other %d %d %d\n", now, known, floor)) }  /* another proof comes */
    :: now > 3 && !once -> d_step { now = now - 2; once = true }     /* the clock is set back */
    :: !once -> d_step {                                             /* the memory is lost, and begun anew */
           once = true;
           known = false;
#ifndef BEGINS_WITHOUT_A_FLOOR
           floor = now + AHEAD
#endif
           tell(("lost %d %d %d\n", now, known, floor))
       }
    :: down = !down
    :: break
    od
}
