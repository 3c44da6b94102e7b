// What looks like a token, a set of them, a part that travels with one, or a JSON Web Token: as
// `captoken.cli.console.pasted` has it. Nothing that holds one goes into an address, a question or
// the history: `state.ts` and `api.ts` see to that for whatever comes to them.
export const holdsToken = (text: string): boolean =>
  /caps?1[a-z]?_|eyJ[\w-]{9,}\.eyJ/i.test(text);
