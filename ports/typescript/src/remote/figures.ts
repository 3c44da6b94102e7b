/** Figures of the stores: made of the text of Python's stores by `python -m tests.ported`, and never edited. */

export const PROOF_AHEAD = 5;
export const CLOCKS_DIFFER = 60;
export const GONE = -31;
export const CONSENT_GONE = -3601;
export const LEASE = 60;
export const KEPT = 3600;
export const MOST_BUCKETS = 10000;
export const FULL = 1000;
export const MISSING = -3;
