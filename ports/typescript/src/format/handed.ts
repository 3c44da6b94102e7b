/** What leaves the library: copies, frozen. Nothing that decides can be changed by them. */

const closed = (): never => {
  throw new TypeError("a copy that cannot be changed");
};
const CLOSED: PropertyDescriptorMap = {};
for (const name of ["set", "add", "delete", "clear"]) CLOSED[name] = { value: closed };

const frozen = (made: object): object => Object.freeze(Object.defineProperties(made, CLOSED));

/** A copy of plain values, however deep. Bytes cannot be frozen; instances of classes stay. */
export function handed<T>(value: T): T {
  return copied(value) as T;
}

function copied(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return Object.freeze(value.map(copied));
  if (value instanceof Map) {
    return frozen(new Map([...value].map(([key, one]) => [key, copied(one)])));
  }
  if (value instanceof Set) return frozen(new Set(value));
  if (value instanceof Uint8Array) return value.slice();
  const parent: unknown = Object.getPrototypeOf(value);
  if (parent !== null && parent !== Object.prototype) return value;
  const made = Object.fromEntries(Object.entries(value).map(([key, one]) => [key, copied(one)]));
  return Object.freeze(parent ? made : Object.setPrototypeOf(made, null));
}

/**
 * Freezes what a class made, and what it inherits: its methods stay what they are. Node prints it as
 * its text.
 */
export function lock(made: object): void {
  for (let each = made; each !== Object.prototype; each = Object.getPrototypeOf(each) as object) {
    if (Object.hasOwn(each, "toString")) Object.defineProperty(each, INSPECT, PRINTED);
    Object.freeze(each);
  }
}

const PRINTED: PropertyDescriptor = {
  value(this: object) {
    return this.toString();
  },
};

/** The method by which Node prints an object. */
export const INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom");
