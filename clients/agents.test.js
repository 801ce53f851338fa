'use strict'

// Drives the published pm2, unmodified, against the running stack: its agents link servers to buckets, and
// @pm2/js-api shows which ones.

const assert = require('node:assert/strict')
const { mkdtempSync, rmSync } = require('node:fs')
const { hostname, cpus, tmpdir, totalmem } = require('node:os')
const path = require('node:path')
const { describe, it } = require('node:test')
const { setTimeout: sleep } = require('node:timers/promises')

const { VERSIONS, answer, assertProblem, getToken, newClient, raw, refusal, uniqueEmail, until } = require('./client')
const { VERSION, agentPid, link, logs, newHome, pm2 } = require('./pm2')
const { stackForTests, start } = require('./stack')

const SERVERS = 2
/** Agents show their keys again this often; when they can look up no name on the internet, they reconnect only then. */
const REPORT_MS = 60_000
const NOTICE_MS = 20_000
const TEST = { timeout: 180_000 }

const ROLE_TOO_LOW = { status: 403, code: 'role_too_low' }

const stack = stackForTests()

/** Somebody with an address and a client that signs in by it. */
function person (name, { origin } = stack, version = '0.8.1', email = uniqueEmail(name)) {
  const client = newClient(version, { API: origin, OAUTH: origin }).use('standalone', { refresh_token: email })
  return { email, bucket: client.bucket, origin }
}

/** A bucket on the plan `free`, and what is done with it by its owner or `by` somebody else. */
async function newBucket (on = stack) {
  const owner = person('owner', on)
  const { bucket } = await answer(owner.bucket.create({ name: 'Servers' }), 'create')
  const { _id: id, public_id: publicId, secret_id: secretId } = bucket
  const servers = (by = owner) => answer(by.bucket.retrieveServers(id), 'retrieveServers')
  return {
    id,
    owner,
    keys: { public_id: publicId, secret_id: secretId },
    servers,
    /** `name active` of each server. */
    states: async (by = owner) => (await servers(by)).map(({ name, active }) => `${name} ${active}`),
    deleteServer: (name, by = owner) => by.bucket.server.deleteServer(id, { server_name: name }),
    rotateSecret: async (by = owner) => {
      const authorization = `Bearer ${await getToken(by.origin, by.email)}`
      return raw(by.origin, 'POST', `/api/bucket/${id}/rotate_secret`, { authorization })
    },
    /** A new member with the role `role`. */
    member: async role => {
      const { email, ...member } = person(role, on)
      await answer(member.bucket.retrieveAll(), 'retrieveAll')
      await answer(owner.bucket.inviteUser(id, { email }), 'inviteUser')
      if (role !== 'user') await answer(owner.bucket.setUserRole(id, { email, role }), 'setUserRole')
      return { email, ...member }
    }
  }
}

/** Links a server as must work, and gives what was printed. */
async function linked (home, { keys, owner }, name) {
  const { code, printed } = await link(home, owner.origin, keys, name)
  const all = `${printed}\n${logs(home)}`
  assert.equal(code, 0, all)
  assert.match(printed, /PM2\+ activated!/, all)
  assert.doesNotMatch(printed, /Not managed to connect|ERROR/, all)
  return printed
}

/** Requires a link to be refused, and gives the message that the user reads. */
async function refusedLink (home, origin, keys, name) {
  const { code, printed } = await link(home, origin, keys, name)
  assert.equal(code, 1, printed)
  assert.doesNotMatch(printed, /activated|Not managed to connect/)
  const [, message] = printed.match(/\[PM2\.IO\]\[ERROR\] (.+)/) ?? assert.fail(printed)
  return message
}

/** Requires a command to work, and gives what it printed. */
async function done (home, ...args) {
  const { code, printed } = await pm2(home, ...args)
  assert.equal(code, 0, printed)
  return printed
}

/** Returns when the servers of a bucket are `expected`, as `name active`. */
async function become ({ states }, expected, ms = NOTICE_MS) {
  let last
  await until(ms, async () => (last = await states()).join() === expected.join(), `servers ${expected}`)
    .catch(error => { throw new Error(`${error.message}, but ${last}`) })
}

// The first two wait for a minute, the others meanwhile.
describe(`pm2 ${VERSION}`, { concurrency: 3 }, () => {
  it('is back after a restart of the API, by itself', TEST, async t => {
    if (process.env.BUCKET_API_URL) return t.skip('this API is not ours to restart')
    const data = mkdtempSync(path.join(tmpdir(), 'bucket-api-'))
    let running
    t.after(async () => {
      await running?.stop()
      rmSync(data, { recursive: true, force: true })
    })
    running = await start({ data })
    const bucket = await newBucket(running)
    const home = newHome(t)
    await linked(home, bucket, 'web-1')
    await become(bucket, ['web-1 true'])

    await running.stop()
    assert.doesNotMatch(await done(home, 'link', 'info'), /connected: true/)
    running = await start({ data, port: new URL(running.origin).port })

    await become(bucket, ['web-1 true'], REPORT_MS + NOTICE_MS)
    assert.match(await done(home, 'link', 'info'), /connected: true/)
    await done(home, 'unlink')
    await become(bucket, ['web-1 false'])
  })

  it('is turned away when the secret is another, at its next report', TEST, async t => {
    const bucket = await newBucket()
    const home = newHome(t)
    await linked(home, bucket, 'web-1')
    await become(bucket, ['web-1 true'])

    assert.equal((await bucket.rotateSecret()).status, 200)

    assert.deepEqual(await bucket.states(), ['web-1 true'], 'a connection outlasts the keys that it was opened with')
    await become(bucket, ['web-1 false'], REPORT_MS + NOTICE_MS)
  })

  it('links a server, and both versions of the client read each field of it', TEST, async t => {
    const { keys, id, owner, ...bucket } = await newBucket()
    const home = newHome(t)
    const since = Date.now()

    await linked(home, { keys, owner }, 'web-1')

    await become(bucket, ['web-1 true'])
    for (const version of VERSIONS) {
      const [{ memory, last_seen: lastSeen, ...rest }, ...others] =
        await bucket.servers(person('owner', stack, version, owner.email))
      assert.deepEqual(others, [])
      assert.deepEqual(rest, {
        name: 'web-1',
        hostname: hostname(),
        ip: '127.0.0.1',
        cpus: cpus().length,
        pm2_version: VERSION,
        active: true
      })
      assert.ok(Math.abs(memory - totalmem() / 1e6) <= 1, `${memory} MB`)
      assert.ok(Date.parse(lastSeen) >= since - 1_000 && Date.parse(lastSeen) <= Date.now() + 1_000, lastSeen)
    }
    const info = await done(home, 'link', 'info')
    for (const line of [`machine_name: 'web-1'`, `remote_host: '${stack.origin}'`, 'connected: true']) {
      assert.ok(info.includes(line), info)
    }
    assert.ok((await done(home, 'ls')).includes(`${stack.origin}/#/r/${keys.public_id}`))
  })

  it('keeps the place of a server that is unlinked or stopped, for when it is back', TEST, async t => {
    const bucket = await newBucket()
    const [home, other] = [newHome(t), newHome(t)]
    await linked(home, bucket, 'web-1')
    await become(bucket, ['web-1 true'])

    await done(home, 'unlink')
    await become(bucket, ['web-1 false'])
    await linked(home, bucket, 'web-1')
    await become(bucket, ['web-1 true'])
    await done(home, 'kill')
    await become(bucket, ['web-1 false'])
    await done(home, 'ls')
    await become(bucket, ['web-1 true'])

    await linked(other, bucket, 'web-2')
    await become(bucket, ['web-1 true', 'web-2 true'])
    await linked(home, bucket, 'web-1')
    await become(bucket, ['web-1 true', 'web-2 true'])
  })

  it('is told the same of a wrong secret as of a wrong public key', TEST, async t => {
    const [bucket, gone] = [await newBucket(), await newBucket()]
    await answer(gone.owner.bucket.destroy(gone.id), 'destroy')
    const { public_id: publicId, secret_id: secretId } = bucket.keys
    const other = key => key.replace(/.$/, last => last === 'a' ? 'b' : 'a')

    const messages = []
    for (const keys of [
      { public_id: publicId, secret_id: other(secretId) },
      { public_id: other(publicId), secret_id: secretId },
      { public_id: secretId, secret_id: publicId },
      gone.keys
    ]) {
      messages.push(await refusedLink(newHome(t), stack.origin, keys, 'web-1'))
    }

    assert.match(messages[0], /keys/)
    assert.deepEqual(messages, messages.map(() => messages[0]))
    assert.deepEqual(await bucket.servers(), [])
  })

  it('is told that a name must be ASCII', TEST, async t => {
    const bucket = await newBucket()

    for (const name of ['größe-1', '後']) {
      assert.match(await refusedLink(newHome(t), stack.origin, bucket.keys, name), /ASCII/)
    }

    assert.deepEqual(await bucket.servers(), [])
  })

  it('is told when all servers of the plan are linked, and fits in once one is deleted', TEST, async t => {
    const bucket = await newBucket()
    const [first, second, third] = [newHome(t), newHome(t), newHome(t)]
    await linked(first, bucket, 'web-1')
    await linked(second, bucket, 'web-2')
    await become(bucket, ['web-1 true', 'web-2 true'])

    const message = await refusedLink(third, stack.origin, bucket.keys, 'web-3')

    assert.match(message, new RegExp(`\\b${SERVERS} servers\\b`))
    assert.deepEqual(await bucket.states(), ['web-1 true', 'web-2 true'])
    await done(first, 'unlink')
    await become(bucket, ['web-1 false', 'web-2 true'])
    assert.equal(await refusedLink(third, stack.origin, bucket.keys, 'web-3'), message)
    const { success } = await answer(bucket.deleteServer('web-1'), 'deleteServer')
    assert.equal(success, true)
    await linked(third, bucket, 'web-3')
    await become(bucket, ['web-2 true', 'web-3 true'])
  })

  it('keeps its server from being deleted as long as it is connected', TEST, async t => {
    const { owner, ...bucket } = await newBucket()
    const home = newHome(t)
    await linked(home, { owner, ...bucket }, 'web-1')
    await become(bucket, ['web-1 true'])
    const members = await Promise.all(['user', 'developer', 'admin'].map(bucket.member))
    const [user, developer, admin] = members
    const refused = async (expected, promise) => {
      const response = await refusal(promise, 'deleteServer')
      assertProblem(response, expected)
      return response.data.msg
    }

    for (const by of [owner, admin, person('owner', stack, '0.5.60', owner.email)]) {
      assert.match(
        await refused({ status: 406, code: 'server_connected' }, bucket.deleteServer('web-1', by)), /pm2 unlink/)
      await refused({ status: 400, code: 'invalid_input', fields: ['server_name'] }, bucket.deleteServer('web-2', by))
    }
    for (const by of [user, developer]) await refused(ROLE_TOO_LOW, bucket.deleteServer('web-1', by))

    await done(home, 'unlink')
    await become(bucket, ['web-1 false'])
    for (const by of [user, developer]) await refused(ROLE_TOO_LOW, bucket.deleteServer('web-1', by))
    for (const by of members) assert.deepEqual(await bucket.states(by), ['web-1 false'])
    await answer(bucket.deleteServer('web-1', admin), 'deleteServer')
    for (const by of members) assert.deepEqual(await bucket.servers(by), [])
  })

  it('may have two agents of one name, which are one server', TEST, async t => {
    const bucket = await newBucket()
    const [first, second] = [newHome(t), newHome(t)]
    await linked(first, bucket, 'web-1')
    await linked(second, bucket, 'web-1')
    await become(bucket, ['web-1 true'])

    await done(first, 'unlink')
    for (const end = Date.now() + 3_000; Date.now() < end; await sleep(200)) {
      assert.deepEqual(await bucket.states(), ['web-1 true'])
    }
    await done(second, 'unlink')
    await become(bucket, ['web-1 false'])
  })

  it('links with the new secret once it is another, and not with the old one', TEST, async t => {
    const bucket = await newBucket()
    const home = newHome(t)
    const admin = await bucket.member('admin')
    assertProblem(await bucket.rotateSecret(admin), ROLE_TOO_LOW)

    const { status, data } = await bucket.rotateSecret()

    assert.equal(status, 200, JSON.stringify(data))
    const { public_id: publicId, secret_id: secretId } = data.bucket
    assert.equal(publicId, bucket.keys.public_id)
    assert.notEqual(secretId, bucket.keys.secret_id)
    for (const by of [bucket.owner, admin]) {
      assert.equal((await answer(by.bucket.retrieve(bucket.id), 'retrieve')).secret_id, secretId)
    }
    assert.match(await refusedLink(home, stack.origin, bucket.keys, 'web-1'), /keys/)
    assert.deepEqual(await bucket.servers(), [])
    await linked(home, { ...bucket, keys: { public_id: publicId, secret_id: secretId } }, 'web-1')
    await become(bucket, ['web-1 true'])
  })

  it('is missed when its agent dies without a word', TEST, async t => {
    const bucket = await newBucket()
    const home = newHome(t)
    await linked(home, bucket, 'web-1')
    await become(bucket, ['web-1 true'])

    process.kill(agentPid(home), 'SIGKILL')

    await become(bucket, ['web-1 false'])
  })
})
