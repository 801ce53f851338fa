'use strict'

// Drives the published versions of @pm2/js-api, unmodified, against the running stack.

const assert = require('node:assert/strict')
const { describe, it } = require('node:test')

const {
  CLIENT_ID, VERSIONS, answer, assertProblem, getToken, lines, newClient, raw: rawTo, refusal, sent, uniqueEmail,
  unresolved, until, within
} = require('./client')
const { people } = require('./people')
const { plans } = require('./plans')
const { stackForTests } = require('./stack')

const BUCKETS_PER_OWNER = 5
const UNKNOWN_ID = '0123456789abcdef01234567'
const TEST = { timeout: 120_000 }

const stack = stackForTests(async () => {
  // Clients that cannot sign in do not say so: each test would wait in vain.
  const { status, data } = await raw('GET', '/api/bucket', { authorization: `Bearer ${await rawToken()}` })
  assert.equal(status, 200, `GET /api/bucket: ${JSON.stringify(data)}`)
})

for (const version of VERSIONS) {
  describe(`@pm2/js-api ${version}`, () => {
    const open = () => newClient(version, { API: stack.origin, OAUTH: stack.origin })
    /** A client that signs in by refresh token; it holds its calls back until it has. */
    const signIn = refreshToken => open().use('standalone', { refresh_token: refreshToken })
    const retrieveToken = refreshToken =>
      answer(open().auth.retrieveToken({ client_id: CLIENT_ID, refresh_token: refreshToken }), 'retrieveToken')
    const create = async (client, fields = { name: 'bucket' }) =>
      (await answer(client.bucket.create(fields), 'create')).bucket
    const list = client => answer(client.bucket.retrieveAll(), 'retrieveAll')
    const retrieve = (client, id) => answer(client.bucket.retrieve(id), 'retrieve')
    const update = (client, id, fields) => answer(client.bucket.update(id, fields), 'update')
    /** What the client would print, which then does not show up between the results. */
    const silence = t => t.mock.method(console, 'error', () => {}).mock

    people(version, () => stack)
    plans(version, () => stack)

    describe('sign-in', () => {
      it('exchanges a refresh token, lists the buckets, and lets the waiting calls go', TEST, async () => {
        const since = sent(version).length

        const buckets = await list(signIn(uniqueEmail('sign-in')))

        assert.deepEqual(buckets, [])
        const requests = sent(version, since)
        assert.deepEqual(lines(requests), [
          'POST /api/oauth/token 200', 'GET /api/bucket 200', 'GET /api/bucket/ 200'
        ])
        assert.equal(requests[0].authorization, 'Bearer null')
      })

      it('gets everything that clients keep of a token', TEST, async () => {
        const tokens = await retrieveToken(uniqueEmail('tokens'))

        assert.ok(typeof tokens.access_token === 'string' && tokens.access_token !== '')
        assert.ok(typeof tokens.refresh_token === 'string' && tokens.refresh_token !== '')
        assert.equal(tokens.token_type, 'Bearer')
        assert.match(tokens.expire_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/)
        assert.ok(Date.parse(tokens.expire_at) > Date.now())
      })

      it('accepts the refresh token that came with the access token', TEST, async () => {
        const { refresh_token: refreshToken } = await retrieveToken(uniqueEmail('refresh'))

        assert.deepEqual(await list(signIn(refreshToken)), [])
      })

      it('takes an access token that the client has already', TEST, async () => {
        const tokens = await retrieveToken(uniqueEmail('access'))
        const since = sent(version).length

        await list(open().use('standalone', tokens))

        assert.deepEqual(lines(sent(version, since)), ['GET /api/bucket 200', 'GET /api/bucket/ 200'])
      })

      it('reads the clock of the API', TEST, async () => {
        const client = signIn(uniqueEmail('clock'))
        await list(client)

        assert.ok(Math.abs(client.apiDateLag) <= 60_000, `${client.apiDateLag} ms`)
      })

      it('refuses a bad refresh token with the message that clients print', TEST, async () => {
        const refused = await refusal(
          open().auth.retrieveToken({ client_id: CLIENT_ID, refresh_token: 'no-address' }), 'retrieveToken')

        assertProblem(refused, { status: 403, code: 'invalid_grant' })
        assert.equal(refused.data.error, 'invalid_grant')
        assert.equal(refused.data.error_description, refused.data.msg)
      })

      it('refuses an empty refresh token as bad input', TEST, async () => {
        const refused = await refusal(
          open().auth.retrieveToken({ client_id: CLIENT_ID, refresh_token: '' }), 'retrieveToken')

        assertProblem(refused, { status: 400, code: 'invalid_input', fields: ['refresh_token'] })
      })

      it('tells the standalone flow that the refresh token is bad', TEST, async t => {
        const printed = silence(t)
        const since = sent(version).length

        signIn('no-address')

        const { arguments: [text, response] } =
          await until(20_000, () => printed.calls[0], 'the client prints the refusal')
        assert.equal(text, 'Error while retrieving tokens:')
        assertProblem(response, { status: 403, code: 'invalid_grant' })
        assert.deepEqual(lines(sent(version, since)), ['POST /api/oauth/token 403'])
      })
    })

    describe('a bucket', () => {
      it('is created with every field that clients read', TEST, async () => {
        const email = uniqueEmail('create')
        const fields = { name: 'Ærø & Søn', comment: 'the shop', app_url: 'https://shop.example.com/a?b=c' }

        const bucket = await create(signIn(email), fields)

        const { name, comment, app_url: appUrl } = bucket
        assert.deepEqual({ name, comment, app_url: appUrl }, fields)
        assert.match(bucket._id, /^[0-9a-f]{24}$/)
        assert.match(bucket.public_id, /^[0-9a-z]{15}$/)
        assert.match(bucket.secret_id, /^[0-9a-z]{15}$/)
        assert.notEqual(bucket.public_id, bucket.secret_id)
        assert.equal(bucket.node.endpoints.web, stack.origin)
        assert.equal(bucket.node_cache.endpoints.web, stack.origin)
        assert.ok(typeof bucket.credits.offer_type === 'string' && bucket.credits.offer_type !== '')
        assert.equal(bucket.payment.offer_type, bucket.credits.offer_type)
        assert.match(bucket.credits.payer._id, /^[0-9a-f]{24}$/)
        assert.ok(typeof bucket.credits.payer.username === 'string' && bucket.credits.payer.username !== '')
      })

      it('is paid for by who created it', TEST, async () => {
        const client = signIn(uniqueEmail('payer'))

        const { credits: { payer } } = await create(client)

        const user = await answer(client.user.retrieve(), 'user.retrieve')
        assert.deepEqual(payer, { _id: user._id, username: user.username })
      })

      it('needs no more than a name', TEST, async () => {
        const bucket = await create(signIn(uniqueEmail('name')), { name: 'PM2 Plus Monitoring' })

        assert.equal(bucket.name, 'PM2 Plus Monitoring')
        assert.deepEqual([bucket.comment, bucket.app_url], ['', ''])
      })

      it('has keys of its own', TEST, async () => {
        const client = signIn(uniqueEmail('keys'))

        const buckets = [await create(client), await create(client)]

        const keys = buckets.flatMap(bucket => [bucket._id, bucket.public_id, bucket.secret_id])
        assert.equal(new Set(keys).size, 6)
      })

      it('is listed, oldest first, with and without a trailing slash', TEST, async () => {
        const email = uniqueEmail('list')
        const client = signIn(email)
        const created = [await create(client, { name: 'b' }), await create(client, { name: 'a' })]

        const listed = await list(client)

        assert.deepEqual(listed, created)
        const { access_token: token } = await retrieveToken(email)
        for (const path of ['/api/bucket', '/api/bucket/']) {
          const { status, data } = await raw('GET', path, { authorization: `Bearer ${token}` })
          assert.deepEqual({ status, data }, { status: 200, data: listed }, path)
        }
      })

      it('is retrieved at the origin that it names', TEST, async () => {
        const client = signIn(uniqueEmail('retrieve'))
        const bucket = await create(client, { name: 'mine', comment: 'c', app_url: 'http://example.com' })
        const since = sent(version).length

        assert.deepEqual(await retrieve(client, bucket._id), bucket)
        assert.deepEqual(await retrieve(client, bucket._id), bucket)

        // The client first asks where the bucket is, once.
        assert.deepEqual(lines(sent(version, since)), Array(3).fill(`GET /api/bucket/${bucket._id} 200`))
      })

      it('tells its owner the role', TEST, async () => {
        const client = signIn(uniqueEmail('role'))
        const { _id } = await create(client)

        assert.deepEqual(await answer(client.bucket.currentRole(_id), 'currentRole'), { role: 'owner' })
      })

      it('has each of its fields updated by itself', TEST, async () => {
        const client = signIn(uniqueEmail('update'))
        const lasting = ({ updated_at: _, ...rest }) => rest
        let bucket = lasting(await create(client, { name: 'before', comment: 'c', app_url: 'http://a.example' }))

        for (const change of [
          { name: ' näch 後 ' },
          { comment: 'line\nline' },
          { comment: '' },
          { app_url: 'https://b.example:8443/x' },
          { app_url: '' },
          { configuration: 'text' },
          { name: 'all', comment: 'at', app_url: 'http://once.example', configuration: { a: 1 } }
        ]) {
          bucket = { ...bucket, ...change }
          for (const got of [await update(client, bucket._id, change), await retrieve(client, bucket._id)]) {
            assert.deepEqual(lasting(got), bucket, JSON.stringify(change))
          }
        }
      })

      it('gives a configuration back as it was sent, text or object', TEST, async () => {
        const client = signIn(uniqueEmail('configuration'))
        const { _id } = await create(client)

        for (const configuration of [
          'plain', '', '{"json":"in a text"}', 'Grüße "\\\u2028', {},
          { z: [1, null, { ä: true }], a: { b: 'c' }, 10: 1.5 }
        ]) {
          const updated = await update(client, _id, { configuration })
          const [listed] = await list(client)

          for (const bucket of [updated, await retrieve(client, _id), listed]) {
            assert.equal(JSON.stringify(bucket.configuration), JSON.stringify(configuration))
          }
        }
      })

      it('is gone when it has been destroyed', TEST, async () => {
        const email = uniqueEmail('destroy')
        const client = signIn(email)
        const [kept, bucket] = [await create(client, { name: 'kept' }), await create(client, { name: 'gone' })]

        const destroyed = await answer(client.bucket.destroy(bucket._id), 'destroy')

        assert.equal(destroyed._id, bucket._id)
        assert.deepEqual(await list(client), [kept])
        assert.deepEqual((await answer(client.user.retrieve(), 'user.retrieve')).authorized_bucket, [kept._id])
        for (const [what, call] of [
          ['retrieve', () => client.bucket.retrieve(bucket._id)],
          ['currentRole', () => client.bucket.currentRole(bucket._id)],
          ['update', () => client.bucket.update(bucket._id, { name: 'back' })],
          ['destroy', () => client.bucket.destroy(bucket._id)]
        ]) {
          assertProblem(await refusal(call(), what), { status: 404, code: 'bucket_not_found' })
        }
        assertProblem(
          await unresolved(signIn(email).bucket.retrieve(bucket._id), 'a client that never saw it'),
          { status: 404, code: 'bucket_not_found' })
      })
    })

    describe('a refusal', () => {
      it('names the bad field of a bucket to create', TEST, async () => {
        const client = signIn(uniqueEmail('bad-create'))

        for (const [fields, bad] of [
          [{ name: '' }, 'name'],
          [{ name: ' \t' }, 'name'],
          [{ name: 'x'.repeat(101) }, 'name'],
          [{ name: 'x', comment: 5 }, 'comment'],
          [{ name: 'x', comment: 'x'.repeat(1_001) }, 'comment'],
          [{ name: 'x', app_url: 'example.com' }, 'app_url'],
          [{ name: 'x', app_url: 'ftp://example.com' }, 'app_url'],
          [{ name: 'x', app_url: ['http://example.com'] }, 'app_url']
        ]) {
          const refused = await refusal(client.bucket.create(fields), JSON.stringify(fields).slice(0, 60))
          assertProblem(refused, { status: 400, code: 'invalid_input', fields: [bad] })
          assert.ok(refused.data.msg.includes(bad), refused.data.msg)
        }
        assert.deepEqual(await list(client), [])
      })

      it('names the bad field of an update, which then changes nothing', TEST, async () => {
        const client = signIn(uniqueEmail('bad-update'))
        const bucket = await create(client)

        for (const [fields, bad] of [
          [{ name: ' ', comment: 'new' }, 'name'],
          [{ name: 'new', comment: {} }, 'comment'],
          [{ name: 'new', app_url: 'javascript:alert(1)' }, 'app_url'],
          [{ name: 'new', configuration: 5 }, 'configuration'],
          [{ name: 'new', configuration: ['list'] }, 'configuration'],
          [{ name: 'new', configuration: 'x'.repeat(16 * 1_024) }, 'configuration']
        ]) {
          const refused = await refusal(client.bucket.update(bucket._id, fields), JSON.stringify(fields).slice(0, 60))
          assertProblem(refused, { status: 400, code: 'invalid_input', fields: [bad] })
        }
        assert.deepEqual(await retrieve(client, bucket._id), bucket)
      })

      it('says that an update asks for nothing', TEST, async () => {
        const client = signIn(uniqueEmail('empty-update'))
        const { _id } = await create(client)

        const fields = ['name', 'comment', 'app_url', 'configuration']
        assertProblem(await refusal(client.bucket.update(_id, {}), 'update'),
          { status: 400, code: 'invalid_input', fields })
      })

      it('says that a body is too large', TEST, async () => {
        const client = signIn(uniqueEmail('large'))

        assertProblem(
          await refusal(client.bucket.create({ name: 'x', comment: 'x'.repeat(65 * 1_024) }), 'create'),
          { status: 413, code: 'body_too_large' })
      })

      it('comes from the client itself when the name is missing', TEST, async () => {
        const client = signIn(uniqueEmail('no-name'))
        await list(client)
        const since = sent(version).length

        for (const [fields, message] of [
          [{ comment: 'x' }, /^Missing mandatory field name/],
          [{ name: 5 }, /^Invalid type for field name/]
        ]) {
          await assert.rejects(within(5_000, client.bucket.create(fields), 'create'), { message })
        }
        assert.deepEqual(sent(version, since), [])
      })

      it(`meets who owns ${BUCKETS_PER_OWNER} buckets and wants another, until one is destroyed`, TEST, async () => {
        const client = signIn(uniqueEmail('limit'))
        const [first] = await Promise.all(Array.from({ length: BUCKETS_PER_OWNER }, () => create(client)))

        const refused = await refusal(client.bucket.create({ name: 'one more' }), 'create')

        assertProblem(refused, { status: 403, code: 'bucket_limit' })
        assert.equal((await list(client)).length, BUCKETS_PER_OWNER)
        await answer(client.bucket.destroy(first._id), 'destroy')
        await create(client)
      })

      it('meets who creates a bucket without a verified address', TEST, async () => {
        const client = signIn(`${uniqueEmail('unverified')}#unverified`)

        assert.deepEqual(await list(client), [])
        assertProblem(
          await refusal(client.bucket.create({ name: 'x' }), 'create'), { status: 403, code: 'email_unverified' })
      })

      it('does not tell somebody else\'s bucket from one that does not exist', TEST, async () => {
        const owner = signIn(uniqueEmail('owner'))
        const bucket = await create(owner)
        const email = uniqueEmail('stranger')
        const stranger = signIn(email)

        const bodies = []
        for (const id of [bucket._id, UNKNOWN_ID]) {
          for (const [what, call] of [
            ['retrieve', () => stranger.bucket.retrieve(id)],
            ['currentRole', () => stranger.bucket.currentRole(id)],
            ['update', () => stranger.bucket.update(id, { name: 'mine now' })],
            ['destroy', () => stranger.bucket.destroy(id)]
          ]) {
            const refused = await unresolved(call(), what)
            assertProblem(refused, { status: 404, code: 'bucket_not_found' })
            bodies.push(refused.data)
          }
          // The client gives up before it sends these.
          const authorization = `Bearer ${(await retrieveToken(email)).access_token}`
          for (const [method, body] of [['PUT', { name: 'mine now' }], ['DELETE', {}]]) {
            const refused = await raw(method, `/api/bucket/${id}`, { authorization }, body)
            assertProblem(refused, { status: 404, code: 'bucket_not_found' })
            bodies.push(refused.data)
          }
        }
        assert.equal(new Set(bodies.map(body => JSON.stringify({ ...body, request_id: null }))).size, 1)
        assert.deepEqual(await retrieve(owner, bucket._id), bucket)
      })

      it('meets an id that cannot be one', TEST, async () => {
        const client = signIn(uniqueEmail('bad-id'))

        assertProblem(
          await refusal(client.bucket.retrieve('no-such-bucket'), 'retrieve'), { status: 404, code: 'bucket_not_found' })
      })
    })

    describe('an expired access token', () => {
      it('is replaced and the call replayed, or the call rejects', TEST, async t => {
        silence(t)
        const email = uniqueEmail('expired')
        const { _id } = await create(signIn(email))
        // Tokens are accepted for 60 seconds beyond their end: these for 6.
        const shortLived = `${email}#ttl=-54`
        const replaying = signIn(shortLived)
        const without = open().use('standalone', await retrieveToken(shortLived))
        const answers = [shortLived, `${email}#ttl=-120`]
        const getsExpired = open().use({
          retrieveTokens: (client, done) => retrieveToken(answers.shift()).then(tokens => done(null, tokens), done),
          deleteTokens: () => {}
        })
        const clients = { replaying, without, getsExpired }
        for (const [name, client] of Object.entries(clients)) {
          assert.equal((await within(5_000, list(client), `${name}: retrieveAll with a fresh token`)).length, 1)
        }
        const authorization = `Bearer ${(await retrieveToken(shortLived)).access_token}`
        await until(30_000, async () => (await raw('GET', '/api/bucket', { authorization })).status === 401, 'tokens expire')

        // A client that only wants to know where a bucket is does not refresh.
        assertProblem(
          await unresolved(replaying.bucket.retrieve(_id), 'retrieve'), { status: 401, code: 'expired_token' })
        const since = sent(version).length
        assert.equal((await list(replaying)).length, 1)
        assert.deepEqual(lines(sent(version, since)), [
          'GET /api/bucket/ 401', 'POST /api/oauth/token 200', 'GET /api/bucket 200', 'GET /api/bucket/ 200'
        ])
        assert.equal((await retrieve(replaying, _id))._id, _id)

        // Without a better token there is nothing to replay.
        for (const [what, client] of [['the same token again', without], ['an expired token again', getsExpired]]) {
          const refused = await refusal(client.bucket.retrieveAll(), what)
          assertProblem(refused, { status: 401, code: 'expired_token' })
          assert.match(refused.headers['www-authenticate'], /^Bearer error="invalid_token"/)
        }
      })

      it('is refused at sign-in with a reason', TEST, async t => {
        const printed = silence(t)
        const since = sent(version).length

        signIn(`${uniqueEmail('expired')}#ttl=-120`)

        await until(20_000, () => printed.callCount() >= 2, 'the client prints the refusal')
        assert.equal(printed.calls[0].arguments[0], 'Error while retrieving buckets')
        assert.equal(printed.calls[1].arguments[0].code, 'expired_token')
        assert.deepEqual(lines(sent(version, since)), ['POST /api/oauth/token 200', 'GET /api/bucket 401'])
      })
    })

    describe('the user', () => {
      it('is known with the buckets that are open to them', TEST, async () => {
        const email = uniqueEmail('user')
        const client = signIn(email)
        const ids = [(await create(client))._id, (await create(client))._id]

        const user = await answer(client.user.retrieve(), 'user.retrieve')

        assert.match(user._id, /^[0-9a-f]{24}$/)
        assert.ok(typeof user.username === 'string' && user.username !== '')
        assert.equal(user.email, email)
        assert.equal(user.email_token, null)
        assert.deepEqual(user.authorized_bucket.toSorted(), ids.toSorted())
      })

      it('has an e-mail token as long as the address is not verified', TEST, async () => {
        const user = await answer(signIn(`${uniqueEmail('user')}#unverified`).user.retrieve(), 'user.retrieve')

        assert.ok(typeof user.email_token === 'string' && user.email_token !== '')
        assert.deepEqual(user.authorized_bucket, [])
      })
    })

    it('works through a proxy, which is how the pm2 command line is pointed at another API', TEST, async t => {
      process.env.https_proxy = stack.origin
      t.after(() => { delete process.env.https_proxy })
      // As long as the variable works, this name is never looked up; and it cannot exist.
      const elsewhere = 'https://api.invalid'
      const client = newClient(version, { API: elsewhere, OAUTH: elsewhere })
      const since = sent(version).length
      client.use('standalone', { refresh_token: uniqueEmail('proxy') })

      const bucket = await create(client)

      assert.equal(bucket.node.endpoints.web, stack.origin)
      assert.deepEqual(await retrieve(client, bucket._id), bucket)
      assert.deepEqual(lines(sent(version, since)), [
        `POST ${elsewhere}/api/oauth/token 200`,
        `GET ${elsewhere}/api/bucket 200`,
        `POST ${elsewhere}/api/bucket/create_classic 200`,
        `GET ${elsewhere}/api/bucket/${bucket._id} 200`,
        // From here on the client goes where the bucket says.
        `GET /api/bucket/${bucket._id} 200`
      ])
    })

    it('has sent nothing to anywhere else', () => {
      const { hostname } = new URL(stack.origin)

      assert.deepEqual([...new Set(sent(version).map(({ host }) => host))], [hostname])
    })
  })
}

describe('on the wire', () => {
  const page = 'https://dashboard.example.com'

  it('a browser may send every request of the clients', TEST, async () => {
    for (const [method, path] of [
      ['POST', '/api/oauth/token'],
      ['POST', '/api/bucket/create_classic'],
      ['GET', '/api/bucket'],
      ['GET', '/api/bucket/'],
      ['GET', `/api/bucket/${UNKNOWN_ID}`],
      ['GET', `/api/bucket/${UNKNOWN_ID}/current_role`],
      ['PUT', `/api/bucket/${UNKNOWN_ID}`],
      ['DELETE', `/api/bucket/${UNKNOWN_ID}`],
      ['POST', `/api/bucket/${UNKNOWN_ID}/add_user`],
      ['DELETE', `/api/bucket/${UNKNOWN_ID}/invitation`],
      ['GET', `/api/bucket/${UNKNOWN_ID}/users_authorized`],
      ['POST', `/api/bucket/${UNKNOWN_ID}/remove_user`],
      ['POST', `/api/bucket/${UNKNOWN_ID}/promote_user`],
      ['POST', `/api/bucket/${UNKNOWN_ID}/transfer_ownership`],
      ['POST', `/api/bucket/${UNKNOWN_ID}/manage_notif`],
      ['PUT', `/api/bucket/${UNKNOWN_ID}/user_options`],
      ['PUT', `/api/bucket/${UNKNOWN_ID}/feedback`],
      ['GET', '/api/users/isLogged']
    ]) {
      const { status, headers } = await raw('OPTIONS', path, {
        origin: page,
        'access-control-request-method': method,
        'access-control-request-headers': 'authorization,content-type,x-js-api-version'
      })
      const what = `${method} ${path}`
      const names = header => headers[header].toLowerCase().split(/ *, */)
      assert.ok(status === 200 || status === 204, `${what}: ${status}`)
      assert.equal(headers['access-control-allow-origin'], '*', what)
      assert.ok(names('access-control-allow-methods').includes(method.toLowerCase()), what)
      for (const header of ['authorization', 'content-type', 'x-js-api-version']) {
        assert.ok(names('access-control-allow-headers').includes(header), `${what}: ${header}`)
      }
    }
  })

  it('a page may read answers and refusals alike', TEST, async () => {
    const authorization = `Bearer ${await rawToken()}`
    for (const [expected, path, headers] of [
      [200, '/api/bucket/', { authorization }],
      [401, '/api/bucket', {}],
      [404, `/api/bucket/${UNKNOWN_ID}`, { authorization }],
      [404, '/api/nothing/here', {}],
      [404, '/api/bucket/a/b/c', { authorization }]
    ]) {
      const { status, headers: got } = await raw('GET', path, { ...headers, origin: page })
      assert.equal(status, expected, path)
      assert.equal(got['access-control-allow-origin'], '*', path)
      assert.ok(got['access-control-expose-headers'].toLowerCase().split(/ *, */).includes('date'), path)
    }
  })

  it('a request without a token is told what to send', TEST, async () => {
    for (const [authorization, code, challenge] of [
      [undefined, 'missing_token', 'Bearer'],
      ['Bearer null', 'invalid_token', 'Bearer error="invalid_token"']
    ]) {
      const refused = await raw('GET', '/api/bucket', authorization ? { authorization } : {})
      assertProblem(refused, { status: 401, code })
      assert.equal(refused.headers['www-authenticate'], challenge)
    }
  })

  it('an unknown route answers in the same form as any refusal', TEST, async () => {
    assertProblem(await raw('GET', '/api/nothing/here', {}), { status: 404, code: 'route_not_found' })
    assertProblem(await raw('PATCH', '/api/bucket', {}), { status: 404, code: 'route_not_found' })
  })

  it('a target in absolute form, as a client sends it to a proxy, is answered', TEST, async () => {
    const authorization = `Bearer ${await rawToken()}`
    for (const scheme of ['http', 'https']) {
      const target = `${scheme}://api.example.com/api/bucket`
      const { status, data } = await raw('GET', target, { authorization, host: 'api.example.com' })
      assert.deepEqual({ status, data }, { status: 200, data: [] }, target)
    }
  })
})

/** An access token of somebody new, got without a client. */
function rawToken () {
  return getToken(stack.origin, uniqueEmail('raw'))
}

/** Sends a request to the stack without a client. */
function raw (...request) {
  return rawTo(stack.origin, ...request)
}
