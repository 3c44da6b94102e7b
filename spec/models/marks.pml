/* A task with three marks: what is private, what strangers wrote, and what goes out. Once the first two are set, nothing
   goes out any more. Two servers take two steps each and a third takes one, of whatever kind. A server asks the ledger, then
   does the access; it may die in between, its ledger may be away, and an answer may be lost. It remembers which marks are
   set. What the ledger is asked for takes one of a budget, too. */

#define LIMIT 3
#define P 0                          /* private */
#define U 1                          /* untrusted */
#define O 2                          /* outside */

mtype = { yes, closed, lacking };

#ifdef REMEMBERS_WHAT_IS_NOT_SET
#define NOT_CLOSED (knows_not || o)
#else
#define NOT_CLOSED false
#endif

#ifdef TRACE                         /* each step of the store, and what it is then: for spec/models/traces.py */
#define told_step ; printf("step %d %d %d %d %d %d %d\n", 2 * me + turn, \
                           (p -> 0 : (!o -> 1 : (!u -> 2 : 3))), \
                           (answer == yes -> 0 : (answer == closed -> 1 : 2)), set[P], set[U], set[O], spent)
#define told_died ; printf("died %d %d %d %d %d\n", me, set[P], set[U], set[O], spent)
#else
#define told_step
#define told_died
#endif

bool set[3];                         /* the ledger */
byte spent;
bool made[6];                        /* its reservations, by their id */

#ifdef ALL_OR_NOTHING
bool owed[3];                        /* marks of what was let through: what ought to be set */
byte taken;                          /* how many those are: what ought to be spent */
#else
bool done[2];                        /* accesses that were let through, and done */
bool dead;                           /* one died that was to read what is private */
#endif

inline judge() {                     /* as if the marks of the step itself were set */
    if
#ifdef NOT_AS_IF_ITS_OWN_WERE_SET
    :: o && set[P] && set[U] -> answer = closed
#else
    :: o && (set[P] || p) && (set[U] || u) -> answer = closed
#endif
    :: else -> answer = (!made[2 * me + turn] && spent == LIMIT -> lacking : yes)
    fi
}

inline mark() {
    set[P] = set[P] || p; set[U] = set[U] || u; set[O] = set[O] || o
}

inline reserve() {                   /* again with the same id: nothing is taken twice */
    if
    :: made[2 * me + turn]
    :: else -> made[2 * me + turn] = true; spent++
    fi
}

inline allow() {
    skip
#ifdef ALL_OR_NOTHING
    ; owed[P] = owed[P] || p; owed[U] = owed[U] || u; owed[O] = owed[O] || o;
    taken = (made[2 * me + turn] -> taken : taken + 1)
#endif
}

inline hear() {                      /* what must hold of an answer */
#ifdef NOTHING_GOES_OUT_AFTER
    assert(!(answer == yes && o && (done[P] || p) && (done[U] || u)));
#endif
#ifdef ONE_ALONE_CLOSES_NOTHING
    assert(!(answer == yes && o && done[P]));
#endif
#ifdef CLOSED_BY_THE_DEAD
    assert(!(answer == closed && dead && !p && !done[P]));
#endif
    skip
}

inline write() {
    if
    :: answer == yes -> allow(); mark(); reserve()
#ifdef MARKS_BEFORE_IT_RESERVES
    :: answer == lacking -> mark()
#endif
#ifdef DEBITS_WHAT_IS_CLOSED
    :: answer == closed -> reserve()
#endif
    :: else
    fi
}

inline ask() {
#if defined(CHECK_THEN_SET)
    atomic { judge() };
    atomic { write() told_step; hear() }
#elif defined(SETS_AFTERWARDS)
    atomic { judge(); if :: answer == yes -> allow(); reserve() :: else fi; hear() }
#else
    d_step { judge(); write() told_step; hear() }
#endif
}

proctype Server(byte me) {
    byte turn = me / 2;
    bool p, u, o, knows[2], knows_not;
    mtype answer;
    do
    :: turn == 2 -> break
    :: else ->
        atomic {
            if
            :: p = true
            :: u = true
            :: o = true
            :: u = true; o = true
            fi
        };
        if
        :: o && (knows[P] || p) && (knows[U] || u) -> answer = closed  /* what is set stays set: nobody is asked */
        :: !o && (!p || knows[P]) && (!u || knows[U]) -> answer = yes
#ifdef REMEMBERS_WHAT_IS_NOT_SET
        :: o && knows_not -> atomic { answer = yes; allow(); mark(); reserve(); hear() }
#endif
        :: else ->
            if
            :: ask(); if :: ask() :: true fi                           /* the answer was lost, and it is asked again */
#ifdef FAILS_OPEN
            :: atomic { answer = yes; allow(); reserve(); hear() }
#else
            :: answer = lacking                                        /* the ledger cannot be reached */
#endif
            fi;
            atomic {
                if
                :: answer == yes -> knows[P] = knows[P] || p; knows[U] = knows[U] || u; knows_not = NOT_CLOSED
                :: answer == closed ->
#ifdef REMEMBERS_WHAT_IT_WOULD_HAVE_SET
                    knows[P] = true; knows[U] = true
#else
                    knows[P] = knows[P] || !p; knows[U] = knows[U] || !u   /* what was set before it */
#endif
                :: else
                fi
            }
        fi;
        if
        :: answer != yes
        :: answer == yes -> atomic {                                   /* dies */
               skip
#ifdef CLOSED_BY_THE_DEAD
               ; dead = dead || p
#endif
#ifdef FORGETS_WITH_ITS_SERVER
               ; set[P] = false; set[U] = false; set[O] = false
#endif
               told_died
           };
           goto over
        :: answer == yes ->
#ifndef ALL_OR_NOTHING
            atomic { done[P] = done[P] || p; done[U] = done[U] || u };
#endif
            skip;
#ifdef SETS_AFTERWARDS
            if :: goto over :: atomic { mark() } fi
#endif
        fi;
        atomic { p = false; u = false; o = false; turn++ }
    od;
over: skip
}

init {
    atomic { run Server(0); run Server(1); run Server(2) };
    _nr_pr == 1;
#ifdef ALL_OR_NOTHING
    assert(set[P] == owed[P] && set[U] == owed[U] && set[O] == owed[O] && spent == taken)
#endif
}
