// A certified OpenID provider (oidc-provider) on loopback, with a page on which anybody signs in.
// Arguments: port, JSON with client, secret, redirect and afterwards (the address after the sign-out).
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [port, given] = process.argv.slice(2);
const { client, secret, redirect, afterwards } = JSON.parse(given);
const issuer = `http://127.0.0.1:${port}`;
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

const provider = new Provider(issuer, {
  clients: [{
    client_id: client,
    client_secret: secret,
    redirect_uris: [redirect],
    post_logout_redirect_uris: [afterwards],
    response_types: ['code'],
    grant_types: ['authorization_code'],
    require_auth_time: true,
  }],
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: randomUUID() }] },
  cookies: { keys: [randomUUID()] },
  claims: { openid: ['sub', 'amr'], email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: false,
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: id, email: `${id}@knowledge.example`, email_verified: true }),
  }),
});
provider.on('server_error', (_, error) => console.error(error));

async function interact(request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (prompt.name === 'consent') { // the company's own application: people are not asked
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    return provider.interactionFinished(
      request, response, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
  }
  if (request.method === 'GET') {
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    return response.end(`<!doctype html><title>Company</title><form method="post"><input name="login" autofocus>
      <label><input type="checkbox" name="factor" value="on"> second factor</label><button>Sign in</button></form>`);
  }
  let body = '';
  for await (const chunk of request) body += chunk;
  const form = new URLSearchParams(body);
  const amr = form.get('factor') === 'on' ? ['pwd', 'mfa'] : ['pwd'];
  return provider.interactionFinished(request, response, { login: { accountId: form.get('login'), amr } });
}

const callback = provider.callback();
createServer((request, response) => {
  if (!request.url.startsWith('/interaction/')) return callback(request, response);
  return interact(request, response).catch((error) => {
    console.error(error);
    response.writeHead(400).end();
  });
}).listen(Number(port), '127.0.0.1');
