/* An operator revokes; meanwhile a second one twice signs anew what stands. A server has a feed, verifies a token and has
   a grant, and decides some accesses on it. The store may be down. It may hand out any snapshot and any delta that ever was
   signed, as a replica that lags does, or somebody in between. That includes what was signed and then not published, since
   another came first: so two snapshots of one number may differ. All are signed, so nobody else makes one up. */

#define BOUND 1                      /* how old an overlay may be */
#define LATEST 4
#ifdef STAYS_DENIED_ON_A_STORE_SET_BACK
#define SIGNED 10                    /* one more that comes second, each time that it is set back */
#else
#define SIGNED 7                     /* snapshots, from 1; 0 is that there is none. Three are published, two come second */
#endif

byte now = 1;
byte revoked_at;                     /* when `revoke` came back; 0: not yet */

/* --- what was signed: each snapshot, whole, and as a delta to the one that it was built on -------------------------- */

byte last = 1;                       /* the one that was signed last */
byte newest = 1;                     /* the one that lies in the store */
byte number[SIGNED];                 /* `seq` */
byte base[SIGNED];                   /* what it was built on: a delta names that by number and hash, so it is just that one */
byte issued_at[SIGNED];
bool revokes[SIGNED];                /* does it say that the token is revoked? */
bool published[SIGNED];              /* or was another one first? */

#ifdef TRACE                         /* each step of the store, and what it is then: for spec/models/traces.py */
#define tell(what) ; printf what
#else
#define tell(what)
#endif

#define ADDS(one) (revokes[one] && !revokes[base[one]])     /* what the delta to it says */

/* --- operators: read the newest, add to it, and publish in its place ---------------------------------------------- */

inline publish(says) {
    do
    :: true ->
#ifdef DATED_WHEN_IT_IS_SIGNED
        before = newest;
        t = now;
#else
        t = now;                     /* before it reads: as of then, what it says is all */
        before = newest;
#endif
        d_step {
            last++;
            number[last] = number[before] + 1;
            base[last] = before;
            issued_at[last] = (t > issued_at[before] -> t : issued_at[before]);
            revokes[last] = revokes[before] || says;
            if
#ifdef PUBLISHES_BLINDLY
            :: true ->
#else
            :: newest == before ->
#endif
                newest = last;
                published[last] = true;
                if :: says -> revoked_at = now :: else fi;
                done = true
            :: else -> done = false
            fi
            tell(("sign %d %d %d %d %d %d\n", last, before, issued_at[last], revokes[last], done, newest));
            before = 0; t = 0
        };
        if :: done -> break :: else fi
    od
}

proctype Revokes() {
    byte before, t; bool done;
    publish(true)
}

proctype Renews() {
    byte before, t; bool done;
    publish(false);
    publish(false)
}

/* --- a server ------------------------------------------------------------------------------------------------------- */

byte known;                          /* the overlay that its feed has, for as long as it runs */
bool revoked;                        /* what that says, as the feed has made it out of deltas */
bool denied;                         /* has it been told so by what was published? */

inline follow() {                    /* a delta, whichever it is handed */
    select(step : 2 .. last);
    if
#if defined(GOES_BY_NUMBERS)
    :: number[base[step]] == number[known] ->
#elif defined(LEAVES_A_GAP)
    :: number[step] > number[known] ->
#elif defined(TAKES_ANY_DELTA)
    :: true ->
#else
    :: base[step] == known ->
#endif
        known = step;
        revoked = revoked || ADDS(step);
        refused = false
    :: else ->
#ifdef KEEPS_WHAT_IT_REFUSES
        revoked = revoked || ADDS(step)
#else
        skip
#endif
    fi
    tell(("delta %d %d %d %d\n", step, !refused, known, revoked));
    step = 0
}

inline look() {                      /* or not: it looks only every few seconds, and the store may be down */
    had = number[known];
    refused = true;
    if
    :: true -> refused = false
    :: true ->                       /* a delta, if it follows on what is known; else the whole */
        if :: known > 0 && last > 1 -> follow() :: else fi;
        select(got : 1 .. last);     /* the whole, whichever it is handed */
#if defined(STAYS_DENIED_ON_A_STORE_SET_BACK) && !defined(GOES_BY_THE_NUMBER)
        up = got;                    /* it names all before it: is what is known one of them? */
        do :: number[up] > number[known] -> up = base[up] :: else -> break od;
#else
        up = known;
#endif
        if
#ifdef FEED_GOES_BACK
        :: refused ->
#elif defined(WAITS_FOR_ITS_DELTA)
        :: refused && (known == 0 || last == 1) && number[got] > number[known] ->
#else
        :: refused && number[got] > number[known] && (up == known || known == 0) ->
#endif
            known = got;
            revoked = revokes[got]
        :: else
        fi
        tell(("whole %d %d %d\n", got, known, revoked))
    fi;
#ifdef IS_WHAT_WAS_SIGNED
    assert(revoked == revokes[known]);
#endif
#ifdef GOES_FORWARD
    assert(number[known] >= had);
#endif
#ifdef CATCHES_UP
    assert(!(refused && got == newest && number[known] < number[newest]));
#endif
#ifdef LEARNS_BY_A_DELTA
    assert(!(revoked && got > 0 && !refused));
#endif
    if :: revoked && published[known] -> denied = true :: else fi;
    had = 0; got = 0; up = 0; refused = false
}

inline decide() {
    t = now;
    atomic {
        look();
        if
#ifdef FAILS_OPEN
        :: known == 0 -> allowed = true
#else
        :: known == 0 -> allowed = false
#endif
#ifndef STALE_IS_GOOD_ENOUGH
        :: known > 0 && t > issued_at[known] + BOUND -> allowed = false
#endif
        :: else -> allowed = !revoked
        fi
        tell(("decide %d %d\n", t, allowed))
    }
}

proctype Server() {
    byte t, had, got, up, step, accesses;
    bool refused, allowed;
    decide();                        /* the token */
    if :: !allowed -> goto over :: allowed fi;
    do
    :: accesses < 2 ->
        accesses++;
#ifdef GRANT_DOES_NOT_ASK_AGAIN
        t = now;
#else
        decide();
#endif
#ifdef ENDS_WITHIN_THE_BOUND
        assert(!(allowed && revoked_at > 0 && t > revoked_at + BOUND));
#endif
#ifdef STAYS_DENIED_ON_A_STORE_SET_BACK
        assert(!(allowed && denied));
#endif
#ifdef STAYS_DENIED
        assert(!(allowed && denied));
#endif
#ifdef WORKS
        assert(!(allowed && accesses == 2));
#endif
#ifdef LASTS_AS_LONG_AS_THE_BOUND
        assert(!(allowed && revoked_at > 0 && t == revoked_at + BOUND));
#endif
        t = 0
    :: break
    od;
over: skip
}

#ifdef STAYS_DENIED_ON_A_STORE_SET_BACK
proctype SetsBack() {                /* once, to what the newest was built on: who signs on has no memory of it */
    d_step { newest > 1 -> newest = base[newest] }
}
#endif

proctype Clock() {
    do
    :: now < LATEST -> now++
    :: else -> break
    od
}

init {
    d_step { number[1] = 1; issued_at[1] = 1; published[1] = true };
#ifdef STAYS_DENIED_ON_A_STORE_SET_BACK
    atomic { run Revokes(); run Renews(); run Server(); run SetsBack() }    /* in no time: nothing grows stale */
#else
    atomic { run Revokes(); run Renews(); run Server(); run Clock() }
#endif
}
