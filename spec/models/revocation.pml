/* An operator revokes; meanwhile a second one twice signs anew what stands. A server has a feed, verifies a token and has
   a grant, and decides some accesses on it. The store may be down, and may hand out any snapshot that ever lay there, as a
   replica that lags does, or somebody in between. Snapshots are signed, so nobody makes one up. */

#define BOUND 1                      /* how old an overlay may be */
#define LATEST 4
#define SNAPSHOTS 5                  /* they are numbered from 1, and 0 is that there is none */

byte now = 1;
byte newest = 1;                     /* the store */
byte issued_at[SNAPSHOTS];           /* of each snapshot */
bool revokes[SNAPSHOTS];             /* does it say that the token is revoked? */
bool down;
byte revoked_at;                     /* when `revoke` came back; 0: not yet */

/* --- operators: read the newest, add to it, and publish in its place ---------------------------------------------- */

inline publish(says) {
    do
    :: newest < SNAPSHOTS - 1 ->
        d_step { before = newest; stood = revokes[newest]; t = now };
        d_step {
            if
#ifdef PUBLISHES_BLINDLY
            :: true ->
#else
            :: newest == before ->
#endif
                newest++;
                issued_at[newest] = t;
                revokes[newest] = stood || says;
                if :: says -> revoked_at = now :: else fi;
                done = true
            :: else -> done = false
            fi;
            before = 0; stood = false; t = 0
        };
        if :: done -> break :: else fi
    :: newest == SNAPSHOTS - 1 -> break
    od
}

active proctype Revokes() {
    byte before, t; bool stood, done;
    publish(true)
}

active proctype Renews() {
    byte before, t; bool stood, done;
    publish(false);
    publish(false)
}

/* --- a server ------------------------------------------------------------------------------------------------------- */

byte seen;                           /* the number of the overlay that its feed knows, for as long as it runs */
bool denied;                         /* has the feed seen that the token is revoked? */

inline look() {                      /* or not: it looks only every few seconds */
    if
    :: true
    :: !down -> select(got : 1 .. newest);
#ifdef FEED_GOES_BACK
       seen = got;
#else
       if :: got > seen -> seen = got :: else fi;
#endif
       got = 0
    fi
}

inline decide() {
    t = now;
    atomic {
        look();
        if
#ifdef FAILS_OPEN
        :: seen == 0 -> allowed = true
#else
        :: seen == 0 -> allowed = false
#endif
#ifndef STALE_IS_GOOD_ENOUGH
        :: seen > 0 && t > issued_at[seen] + BOUND -> allowed = false
#endif
        :: else -> allowed = !revokes[seen]
        fi;
        if :: seen > 0 && revokes[seen] -> denied = true :: else fi
    }
}

active proctype Server() {
    byte t, got, accesses;
    bool allowed;
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

active proctype World() {
    do
    :: now < LATEST -> now++
    :: down = !down
    :: break
    od
}

init { d_step { issued_at[1] = 1 } }
