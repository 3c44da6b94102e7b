// oauth4webapi logs a person in by a code, and refreshes. Called twice: first without `back`, for the address of the browser.
import { readFileSync } from 'node:fs'
import * as oauth from 'oauth4webapi'

const given = JSON.parse(readFileSync(0, 'utf8'))
const options = { [oauth.allowInsecureRequests]: true }
const issuer = new URL(given.issuer)
const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...options })
const server = await oauth.processDiscoveryResponse(issuer, found)
const client = { client_id: given.client }

if (given.back === undefined) {
  const verifier = oauth.generateRandomCodeVerifier()
  const state = oauth.generateRandomState()
  const address = new URL(server.authorization_endpoint)
  const asked = {
    response_type: 'code',
    client_id: given.client,
    redirect_uri: given.redirect,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    resource: given.resource,
    state,
  }
  for (const [name, value] of Object.entries(asked)) address.searchParams.set(name, value)
  console.log(JSON.stringify({ address: address.href, verifier, state }))
} else {
  const came = oauth.validateAuthResponse(server, client, new URL(given.back), given.state)
  const answer = await oauth.authorizationCodeGrantRequest(server, client, oauth.None(), came, given.redirect, given.verifier, options)
  const said = await oauth.processAuthorizationCodeResponse(server, client, answer)
  const again = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), said.refresh_token, options)
  const refreshed = await oauth.processRefreshTokenResponse(server, client, again)
  console.log(JSON.stringify({ ...said, refreshed: refreshed.refresh_token }))
}
