// samlify, as an identity provider of SAML. Reads who logs in, and where, as JSON from standard input, and writes the
// Response that it would post, with the assertion in it. Its template has no AuthnStatement, and is given one.
import { readFileSync } from 'node:fs'
import samlify from 'samlify'

const given = JSON.parse(readFileSync(0, 'utf8'))
const post = 'urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST'
const login = `<saml:AuthnStatement AuthnInstant="{AuthnInstant}" SessionIndex="{SessionIndex}"><saml:AuthnContext>
  <saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef>
</saml:AuthnContext></saml:AuthnStatement>`
const attributes = Object.keys(given.attributes).map((name) => ({
  name,
  nameFormat: 'urn:oasis:names:tc:SAML:2.0:attrname-format:basic',
  valueTag: name,
  valueXsiType: 'xs:string',
}))
const { defaultLoginResponseTemplate } = samlify.SamlLib
const idp = samlify.IdentityProvider({
  entityID: given.issuer,
  privateKey: given.key,
  signingCert: given.certificate,
  requestSignatureAlgorithm: given.algorithm,
  nameIDFormat: ['urn:oasis:names:tc:SAML:2.0:nameid-format:persistent'],
  singleSignOnService: [{ Binding: post, Location: 'https://idp.example/sso' }],
  singleLogoutService: [{ Binding: post, Location: 'https://idp.example/slo' }],
  loginResponseTemplate: {
    context: defaultLoginResponseTemplate.context.replace('{AuthnStatement}', login),
    attributes,
  },
})
const sp = samlify.ServiceProvider({
  entityID: given.audience,
  wantAssertionsSigned: true,
  wantMessageSigned: given.message_signed,
  assertionConsumerService: [{ Binding: post, Location: given.recipient }],
})

const now = new Date()
const soon = new Date(now.getTime() + 300_000).toISOString()
const told = Object.entries(given.attributes).map(([name, value]) => [
  `attr${name[0].toUpperCase()}${name.slice(1)}`, value,
])
const id = () => idp.entitySetting.generateID()
const { context } = await idp.createLoginResponse(sp, {}, 'post', {}, {
  customTagReplacement: (template) => ({
    context: samlify.SamlLib.replaceTagsByValue(template, {
      ID: id(),
      AssertionID: id(),
      Issuer: given.issuer,
      Audience: given.audience,
      Destination: given.recipient,
      SubjectRecipient: given.recipient,
      InResponseTo: '_request',
      IssueInstant: now.toISOString(),
      ConditionsNotBefore: now.toISOString(),
      ConditionsNotOnOrAfter: soon,
      SubjectConfirmationDataNotOnOrAfter: soon,
      AuthnInstant: now.toISOString(),
      SessionIndex: given.session,
      StatusCode: 'urn:oasis:names:tc:SAML:2.0:status:Success',
      NameIDFormat: 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent',
      NameID: given.person,
      ...Object.fromEntries(told),
    }),
  }),
})
const response = Buffer.from(context, 'base64').toString()
const assertion = response.match(/<saml:Assertion .*<\/saml:Assertion>/s)[0]
console.log(JSON.stringify({ response, assertion }))
