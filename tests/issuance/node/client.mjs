// oauth4webapi, as it is: tokens by a signed assertion, and by token exchange with a proof of a key.
// Reads what it needs as JSON from standard input, and writes the answers as JSON.
import { readFileSync } from 'node:fs'
import * as oauth from 'oauth4webapi'

const given = JSON.parse(readFileSync(0, 'utf8'))
const options = { [oauth.allowInsecureRequests]: true } // a loopback address
const issuer = new URL(given.issuer)
const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...options })
const server = await oauth.processDiscoveryResponse(issuer, found)

const { kid, ...jwk } = given.jwk
const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
const key = await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['sign'])
const client = { client_id: given.client_id }
const by = oauth.PrivateKeyJwt({ key, kid })

const asked = await oauth.clientCredentialsGrantRequest(
  server, client, by, { scope: 'nightly', resource: given.resource }, options,
)
const nightly = await oauth.processClientCredentialsResponse(server, client, asked)

const exchange = 'urn:ietf:params:oauth:grant-type:token-exchange'
const subject = {
  subject_token: given.login,
  subject_token_type: 'urn:ietf:params:oauth:token-type:id_token',
  resource: given.resource,
}
const exchanged = await oauth.genericTokenEndpointRequest(
  server, client, by, exchange, { ...subject, scope: 'report' }, options,
)
const report = await oauth.processGenericTokenEndpointResponse(server, client, exchanged)

// The held token, bound to a key of this client's. Its type is N_A: nobody presents it as it is.
const pair = await oauth.generateKeyPair('Ed25519')
const bound = await oauth.genericTokenEndpointRequest(
  server, client, oauth.None(), exchange,
  { ...subject, scope: 'bound', subject_token: given.other_login, requested_token_type: 'urn:captoken:token-type:root' },
  { ...options, DPoP: oauth.DPoP(client, pair) },
)
const held = await oauth.processGenericTokenEndpointResponse(
  server, client, bound, { recognizedTokenTypes: { n_a: () => {} } },
)
const { x } = await crypto.subtle.exportKey('jwk', pair.publicKey)
console.log(JSON.stringify({ nightly, report, held, key: x }))
