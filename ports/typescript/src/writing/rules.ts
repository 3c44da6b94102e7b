/** What constraints are to the compiler: a misspelled one, or one of another kind, does not compile. */

/** A value that a list can name: of numbers, an integer. */
export type Listed = string | number | bigint | boolean;

interface Any {
  readonly any: true;
}
interface In<V> {
  readonly in: readonly V[];
}
/** A number from `min` to `max`: one of them, or both. */
type Range =
  | { readonly min: number; readonly max?: number }
  | { readonly min?: number; readonly max: number };
interface Path {
  readonly path: readonly string[];
}
interface Prefix {
  readonly prefix: readonly string[];
}
interface Url {
  readonly url: readonly string[];
}
interface Cidr {
  readonly cidr: readonly string[];
}
interface Each<C> {
  readonly each: C;
  readonly most?: number;
}

/** A constraint as JSON, `{ max: 5 }`; or as a Map, of which the compiler knows nothing. */
export type ConstraintJson =
  | Any
  | In<Listed>
  | Range
  | Path
  | Prefix
  | Url
  | Cidr
  | Each<ConstraintJson>
  | ReadonlyMap<string, unknown>;

/** Of an argument of a tool: that it may be left out is said beside. */
export type Rule = ConstraintJson & { readonly optional?: true };

/** The constraints that a value of this type can satisfy. */
export type ConstraintFor<V> = unknown extends V
  ? ConstraintJson
  : [V] extends [string]
    ? Any | In<V> | Path | Prefix | Url | Cidr
    : [V] extends [number | bigint]
      ? Any | In<V> | Range
      : [V] extends [boolean]
        ? Any | In<boolean>
        : [V] extends [readonly (infer Item)[]]
          ? Any | Each<ConstraintFor<Item>>
          : [V] extends [Listed | null | undefined]
            ? ConstraintJson
            : Any;

/** What may be said of a tool's arguments, by the type of its input. */
export type RulesFor<Input> = {
  readonly [Name in keyof Input]?: ConstraintFor<NonNullable<Input[Name]>> & {
    readonly optional?: true;
  };
};

/** A schema of zod, valibot, arktype and others (Standard Schema). */
export interface Schema<Input, Output = unknown> {
  readonly "~standard": {
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

/** What a tool is given: of the ways in which its schema can be written, those that say it. */
type GivenBy<S> = S extends Schema<unknown, infer Output> ? Output : never;

/** What is sent to a schema; what a tool with an `inputSchema` is given; else the type itself. */
export type InputOf<T> = T extends { readonly inputSchema: infer S }
  ? GivenBy<S>
  : T extends Schema<infer Input>
    ? Input
    : T;

/**
 * What may be said of these tools: by the names of their schemas, of tools with an `inputSchema`, or of
 * plain types. `tools: { read: { path: { path: ["/a"] } } } satisfies ToolRules<typeof tools>`.
 */
export type ToolRules<Tools> = { readonly [Name in keyof Tools]?: RulesFor<InputOf<Tools[Name]>> };
