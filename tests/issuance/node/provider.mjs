// oidc-provider, a certified identity provider, on a loopback port. Reads its options as JSON from standard input, and
// writes its address as JSON when it listens. It ends when standard input does.
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import Provider from 'oidc-provider'

const lines = createInterface({ input: process.stdin })
const { value } = await lines[Symbol.asyncIterator]().next()
const given = JSON.parse(value)
lines.on('close', () => process.exit(0))
console.info = console.warn = () => {} // its notes on running on a loopback port

const server = createServer()
await new Promise((done) => server.listen(given.port ?? 0, '127.0.0.1', done))
const issuer = `http://127.0.0.1:${server.address().port}`

const accounts = { jane: { groups: ['finance'] }, omar: { groups: ['sales'] } }
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'captoken-cli',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      redirect_uris: ['http://127.0.0.1/callback'],
      grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
      ...given.client,
    },
  ],
  // What is asked for with the scope `openid` stands in the ID token.
  claims: { openid: ['sub', 'groups'], acr: null, auth_time: null, iss: null, sid: null },
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...accounts[id] }) }),
  features: {
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
  cookies: { keys: ['of a test'] },
  // Its own refuses loopback addresses, where the other servers of a test are.
  fetch: (url, options) => globalThis.fetch(url, { ...options, dispatcher: undefined }),
  ...given.options,
})
server.on('request', provider.callback())
console.log(JSON.stringify({ issuer }))
