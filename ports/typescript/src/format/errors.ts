/**
 * What is raised. Every error that is no mistake of the program is a `CaptokenError` with a code.
 */

/**
 * A mistake of the program: a fact or a wish that cannot be stated (the vectors call it `usage`).
 */
export class UsageError extends TypeError {
  override readonly name = "UsageError";
}

/**
 * A fact that cannot be stated, and that a client can have sent: to whoever is asked for a decision
 * a denial (7.7). Not exported.
 */
export class Unstated extends UsageError {
  /** The code of the denial: it depends on what is attempted. */
  code: "argument" | "tool" | "domain" = "domain";
  readonly isNumber: boolean;

  constructor(message: string, isNumber = false) {
    super(message);
    this.isNumber = isNumber;
  }
}

/** All that can go wrong with a token or a key, by a stable code. */
export class CaptokenError extends Error {
  override readonly name: string = "CaptokenError";
  readonly code: string;

  static {
    Object.freeze(this.prototype);
  }

  constructor(message: string, code: string) {
    super(message);
    this.code = code;
    Object.freeze(new.target.prototype);
  }
}

/** Text that is no token, no discharge, or none in the one spelling. */
export class TokenFormatError extends CaptokenError {
  override readonly name = "TokenFormatError";
  /** The step of the plan that it belongs to: 2, or 3 for the root record. */
  readonly step: number;

  constructor(message: string, code = "malformed", step = 2) {
    super(message, code);
    this.step = step;
  }
}

/** What is asked for is more than is held. It shows names, and never the token. */
export class WideningError extends CaptokenError {
  override readonly name = "WideningError";
  readonly dimension: string;

  constructor(dimension: string, message: string, code = "widening") {
    super(message, code);
    this.dimension = dimension;
  }
}

/** A hand-over, a key or a signature that verifiers would refuse. */
export class DelegationError extends CaptokenError {
  override readonly name = "DelegationError";
}

/** Longer, or more, than readers take. */
export class LimitError extends CaptokenError {
  override readonly name = "LimitError";

  constructor(message: string) {
    super(message, "limit");
  }
}

/** A ticket or a discharge that is none, or answers nothing. */
export class DischargeError extends CaptokenError {
  override readonly name = "DischargeError";

  constructor(message: string, code = "bad_ticket") {
    super(message, code);
  }
}
