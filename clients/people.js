'use strict'

// What the clients do about people: invitations, members, roles, hand-over, notifications, options
// and feedback.

const assert = require('node:assert/strict')
const { describe, it } = require('node:test')

const {
  answer, assertProblem, getToken, lines, newClient, raw, refusal, sent, uniqueEmail, unresolved, until, within
} = require('./client')

const SEATS = 5
const INVITATION_DAYS = 7
const BUCKETS_PER_OWNER = 5
const UNKNOWN_ID = '0123456789abcdef01234567'
const ID = /^[0-9a-f]{24}$/
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/
const DAY_MS = 24 * 60 * 60_000
const TEST = { timeout: 120_000 }

const NO_BUCKET = { status: 404, code: 'bucket_not_found' }
const NO_MEMBER = { status: 404, code: 'user_not_found' }
const ROLE_TOO_LOW = { status: 403, code: 'role_too_low' }
const bad = (...fields) => ({ status: 400, code: 'invalid_input', fields })

/** Registers the tests for `version`; `stack()` gives the running one. */
function people (version, stack) {
  /** Somebody with an address and a client that signs in by it as soon as it is made. */
  const person = (name, email = uniqueEmail(name)) => {
    const { origin } = stack()
    const client = newClient(version, { API: origin, OAUTH: origin }).use('standalone', { refresh_token: email })
    return { email, bucket: client.bucket, user: client.user }
  }
  /** The same, once the API knows them. */
  const known = async name => {
    const somebody = person(name)
    await list(somebody)
    return somebody
  }
  const list = somebody => answer(somebody.bucket.retrieveAll(), 'retrieveAll')
  const retrieve = (somebody, id) => answer(somebody.bucket.retrieve(id), 'retrieve')
  const self = somebody => answer(somebody.user.retrieve(), 'user.retrieve')
  const create = async owner => (await answer(owner.bucket.create({ name: 'Servers' }), 'create')).bucket._id
  const invite = (by, id, email) => answer(by.bucket.inviteUser(id, { email }), 'inviteUser')
  const uninvite = (by, id, email) => answer(by.bucket.removeInvitation(id, email), 'removeInvitation')
  const users = (by, id) => answer(by.bucket.retrieveUsers(id), 'retrieveUsers')
  const remove = (by, id, email) => answer(by.bucket.removeUser(id, { email }), 'removeUser')
  const role = async (of, id) => (await answer(of.bucket.currentRole(id), 'currentRole')).role
  const setRole = (by, id, email, role) => answer(by.bucket.setUserRole(id, { email, role }), 'setUserRole')
  const setState = (by, id, email, state) =>
    answer(by.bucket.setNotificationState(id, { email, state }), 'setNotificationState')
  const transfer = (by, id, email) =>
    answer(by.bucket.transferOwnership(id, { new_owner: email }), 'transferOwnership')
  const setOptions = (by, id, options) => answer(by.bucket.updateUserOptions(id, { options }), 'updateUserOptions')

  /** Requires a client's call to be refused, and gives the message that its user reads. */
  const refused = async (expected, promise, what) => {
    const response = await refusal(promise, what)
    assertProblem(response, expected)
    return response.data.msg
  }
  /** `email role` of each entry, in the order that came. */
  const roles = entries => entries.map(({ email, role }) => `${email} ${role}`)
  /** Sends a request that the clients have no method for, as `somebody`. */
  const plain = async (somebody, method, path, body) => {
    const authorization = `Bearer ${await getToken(stack().origin, somebody.email)}`
    return raw(stack().origin, method, path, { authorization }, body)
  }
  const invitations = (by, id) => plain(by, 'GET', `/api/bucket/${id}/invitations`)
  /** The addresses that are invited. */
  const invited = async (by, id) => {
    const { status, data } = await invitations(by, id)
    assert.equal(status, 200, JSON.stringify(data))
    return data.invitations.map(({ email }) => email)
  }
  /** Everything that clients call about the people of the bucket `id`, by the names of the methods. */
  const calls = (by, id, email) => ({
    inviteUser: () => by.bucket.inviteUser(id, { email }),
    removeInvitation: () => by.bucket.removeInvitation(id, email),
    retrieveUsers: () => by.bucket.retrieveUsers(id),
    removeUser: () => by.bucket.removeUser(id, { email }),
    setUserRole: () => by.bucket.setUserRole(id, { email, role: 'admin' }),
    transferOwnership: () => by.bucket.transferOwnership(id, { new_owner: email }),
    setNotificationState: () => by.bucket.setNotificationState(id, { email, state: 'none' }),
    updateUserOptions: () => by.bucket.updateUserOptions(id, { options: {} }),
    sendFeedback: () => by.bucket.sendFeedback(id, { feedback: 'Good' })
  })

  describe('an invitation', () => {
    it('is listed with every field when the address has no account', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const email = uniqueEmail('new')

      const answered = await invite(owner, id, email.toUpperCase())

      assert.deepEqual(Object.keys(answered), ['invitations'])
      const [{ created_at: createdAt, expires_at: expiresAt, ...rest }, ...others] = answered.invitations
      assert.deepEqual(others, [])
      assert.deepEqual(rest, { email, role: 'user', invited_by: (await self(owner))._id })
      for (const time of [createdAt, expiresAt]) assert.match(time, TIME)
      assert.ok(Math.abs(Date.now() - Date.parse(createdAt)) <= 60_000, createdAt)
      assert.equal(Date.parse(expiresAt) - Date.parse(createdAt), INVITATION_DAYS * DAY_MS)
      assert.deepEqual(roles(await users(owner, id)), [`${owner.email} owner`])
    })

    it('makes its person a user of the bucket at the first sign-in', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const email = uniqueEmail('new')
      await invite(owner, id, email)

      const newcomer = person('new', email)

      const [bucket, ...others] = await list(newcomer)
      assert.deepEqual(others, [])
      assert.deepEqual({ _id: bucket._id, role: bucket.role }, { _id: id, role: 'user' })
      assert.ok(!('secret_id' in bucket), 'a user must not see the secret')
      assert.equal(await role(newcomer, id), 'user')
      assert.deepEqual((await self(newcomer)).authorized_bucket, [id])
      assert.deepEqual(roles(await users(owner, id)), [`${owner.email} owner`, `${email} user`])
      assert.deepEqual(await invited(owner, id), [])
    })

    it('also counts when the first call of the newcomer is about the bucket', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const email = uniqueEmail('new')
      await invite(owner, id, email)

      const { status, data } = await plain({ email }, 'GET', `/api/bucket/${id}/current_role`)

      assert.deepEqual({ status, data }, { status: 200, data: { role: 'user' } })
    })

    it('waits as long as the address is not verified', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const email = uniqueEmail('unverified')
      await invite(owner, id, email)

      assert.deepEqual(await list(person('unverified', `${email}#unverified`)), [])

      assert.deepEqual(await invited(owner, id), [email])
      assert.deepEqual(roles(await users(owner, id)), [`${owner.email} owner`])
    })

    it('is renewed, not doubled, when it is made again', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const email = uniqueEmail('again')
      const { invitations: [first] } = await invite(owner, id, email)

      const { invitations: [second, ...others] } = await invite(owner, id, email)

      assert.deepEqual(others, [])
      assert.ok(second.expires_at >= first.expires_at, JSON.stringify([first, second]))
      assert.deepEqual({ ...second, expires_at: null }, { ...first, expires_at: null })
    })

    it('makes somebody with an account a member at once', TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]

      assert.deepEqual(await invite(owner, id, member.email.toUpperCase()), { invitations: [] })

      assert.equal(await role(member, id), 'user')
      assert.deepEqual((await list(member)).map(({ _id }) => _id), [id])
      assert.deepEqual(roles(await users(owner, id)), [`${owner.email} owner`, `${member.email} user`])
    })

    it('is refused for whom is in the bucket', TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]
      await invite(owner, id, member.email)

      for (const { email } of [member, owner]) {
        await refused({ status: 400, code: 'already_member' }, owner.bucket.inviteUser(id, { email }), 'inviteUser')
      }
      assert.deepEqual(roles(await users(owner, id)), [`${owner.email} owner`, `${member.email} user`])
    })

    it('is refused for what is no address', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)

      for (const email of ['', 'nobody', 'a@b@c', 'Somebody <a@example.com>']) {
        await refused(bad('email'), owner.bucket.inviteUser(id, { email }), `inviteUser ${email}`)
      }
      assert.deepEqual(await invited(owner, id), [])
    })

    it(`takes one of the ${SEATS} seats, and a full bucket says so`, TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]
      await invite(owner, id, (await known('first')).email)
      const waiting = Array.from({ length: SEATS - 2 }, () => uniqueEmail('seat'))
      for (const email of waiting) await invite(owner, id, email)

      for (const email of [uniqueEmail('late'), member.email]) {
        const msg = await refused({ status: 403, code: 'seat_limit' }, owner.bucket.inviteUser(id, { email }), 'inviteUser')
        assert.match(msg, new RegExp(`\\b${SEATS}\\b`))
      }

      assert.deepEqual(await invited(owner, id), waiting)
      assert.deepEqual(await list(member), [])
      assert.equal((await invite(owner, id, waiting[0])).invitations.length, waiting.length, 'it has its seat')
      await uninvite(owner, id, waiting[0])
      await invite(owner, id, member.email)
      assert.equal(await role(member, id), 'user')
    })

    it('is removed by the address as this client encodes it', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const email = uniqueEmail('a+b')
      const kept = email.replace('+', '')
      await invite(owner, id, email)
      await invite(owner, id, kept)
      const since = sent(version).length

      const left = await uninvite(owner, id, email)

      assert.deepEqual(left.invitations.map(({ email }) => email), [kept])
      const [{ line, status }, ...others] = sent(version, since)
      assert.deepEqual(others, [])
      const [target, query] = line.split('?')
      assert.deepEqual([target, status], [`DELETE /api/bucket/${id}/invitation`, 200])
      assert.equal(new URLSearchParams(query).get('email'), email)
      await refused(
        { status: 404, code: 'invitation_not_found' }, owner.bucket.removeInvitation(id, email), 'removeInvitation')
      assert.deepEqual(await uninvite(owner, id, kept.toUpperCase()), { invitations: [] })
      assert.deepEqual(await list(person('late', email)), [])
    })

    it('can only be removed by an address', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const email = uniqueEmail('kept')
      await invite(owner, id, email)

      await refused(bad('email'), owner.bucket.removeInvitation(id), 'removeInvitation without address')
      await refused(bad('email'), owner.bucket.removeInvitation(id, 'nobody'), 'removeInvitation of no address')

      assert.deepEqual(await invited(owner, id), [email])
    })

    it('is seen, made and removed by admins and the owner only', TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]
      const [email, another] = [uniqueEmail('guest'), uniqueEmail('another')]
      await invite(owner, id, member.email)
      await invite(owner, id, email)

      for (const low of ['user', 'developer']) {
        await setRole(owner, id, member.email, low)
        await refused(ROLE_TOO_LOW, member.bucket.inviteUser(id, { email: another }), `inviteUser by ${low}`)
        await refused(ROLE_TOO_LOW, member.bucket.removeInvitation(id, email), `removeInvitation by ${low}`)
        assertProblem(await invitations(member, id), ROLE_TOO_LOW)
      }

      assert.deepEqual(await invited(owner, id), [email])
      await setRole(owner, id, member.email, 'admin')
      const { invitations: made } = await invite(member, id, another)
      const { _id } = await self(member)
      assert.deepEqual(made.map(({ invited_by: by }) => by === _id), [false, true])
      assert.deepEqual((await uninvite(member, id, email)).invitations, made.slice(1))
    })

    it('is listed, oldest first, by a route that the clients have no method for', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      assert.deepEqual((await invitations(owner, id)).data, { invitations: [] })
      const emails = ['z', 'a', 'm'].map(uniqueEmail)
      let last
      for (const email of emails) last = await invite(owner, id, email)

      const { status, data } = await invitations(owner, id)

      assert.deepEqual({ status, data }, { status: 200, data: last })
      assert.deepEqual(data.invitations.map(({ email }) => email), emails)
      assertProblem(await invitations(person('stranger'), id), NO_BUCKET)
    })
  })

  describe('members', () => {
    it('are listed for each of them with every field, the owner included', TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]
      await invite(owner, id, member.email)

      const listed = await users(owner, id)

      const entry = async (somebody, role) => {
        const { _id, email, username } = await self(somebody)
        return { _id, email, username, role }
      }
      assert.deepEqual(listed, [await entry(owner, 'owner'), await entry(member, 'user')])
      for (const { _id } of listed) assert.match(_id, ID)
      assert.deepEqual(await users(member, id), listed)
    })

    it('get a role, up and down, that counts from the very next request on', TEST, async () => {
      const owner = person('owner')
      const [id, member, guest] = [await create(owner), await known('member'), uniqueEmail('guest')]
      await invite(owner, id, member.email)
      const asRole = role => [`${owner.email} owner`, `${member.email} ${role}`]

      assert.deepEqual(roles(await setRole(owner, id, member.email, 'developer')), asRole('developer'))
      assert.equal(await role(member, id), 'developer')
      assert.ok(!('secret_id' in await retrieve(member, id)))
      const raised = await setRole(owner, id, member.email.toUpperCase(), 'admin')
      await invite(member, id, guest)
      assert.deepEqual(roles(raised), asRole('admin'))
      assert.deepEqual(Object.keys(raised[1]).toSorted(), ['_id', 'email', 'role', 'username'])
      assert.match((await retrieve(member, id)).secret_id, /^[0-9a-z]{15}$/)

      await setRole(owner, id, member.email, 'user')
      await refused(ROLE_TOO_LOW, member.bucket.removeInvitation(id, guest), 'the demoted person\'s next request')
      assert.equal(await role(member, id), 'user')
      assert.deepEqual(await invited(owner, id), [guest])
    })

    it('get no role that there is not, and none but the owner gives any', TEST, async () => {
      const owner = person('owner')
      const [id, admin] = [await create(owner), await known('admin')]
      await invite(owner, id, admin.email)
      await setRole(owner, id, admin.email, 'admin')
      const set = (by, email, role) => by.bucket.setUserRole(id, { email, role })

      const ownersRole = { status: 403, code: 'owner_role_fixed' }
      await refused(ownersRole, set(owner, owner.email, 'user'), 'the owner\'s role')
      await refused(bad('role'), set(owner, admin.email, 'owner'), 'role owner')
      await refused(bad('role'), set(owner, admin.email, 'root'), 'role root')
      await refused(bad('role'), set(owner, admin.email, 'Admin'), 'role Admin')
      await refused(bad('email'), set(owner, 'nobody', 'user'), 'no address')
      await refused(NO_MEMBER, set(owner, uniqueEmail('nobody'), 'user'), 'a stranger\'s role')
      await refused(ROLE_TOO_LOW, set(admin, admin.email, 'user'), 'setUserRole by an admin')

      assert.deepEqual(roles(await users(owner, id)), [`${owner.email} owner`, `${admin.email} admin`])
    })

    it('are out with their very next request once the owner has removed them', TEST, async () => {
      const owner = person('owner')
      const [id, removed, stays] = [await create(owner), await known('removed'), await known('stays')]
      await invite(owner, id, removed.email)
      await invite(owner, id, stays.email)
      assert.equal(await role(removed, id), 'user')

      const left = await remove(owner, id, removed.email.toUpperCase())

      for (const [what, call] of Object.entries(calls(removed, id, removed.email))) await refused(NO_BUCKET, call(), what)
      await refused(NO_BUCKET, removed.bucket.currentRole(id), 'currentRole')
      assert.deepEqual(left, await users(owner, id))
      assert.deepEqual(roles(left), [`${owner.email} owner`, `${stays.email} user`])
      assert.deepEqual(await list(removed), [])
      assert.deepEqual((await self(removed)).authorized_bucket, [])
      await refused(NO_MEMBER, owner.bucket.removeUser(id, { email: removed.email }), 'removeUser again')
      await invite(owner, id, removed.email)
      assert.equal(await role(removed, id), 'user')
    })

    it('may leave, but not remove each other', TEST, async () => {
      const owner = person('owner')
      const [id, leaving, admin] = [await create(owner), await known('leaving'), await known('admin')]
      await invite(owner, id, leaving.email)
      await invite(owner, id, admin.email)
      await setRole(owner, id, admin.email, 'admin')
      const removal = (by, { email }) => by.bucket.removeUser(id, { email })

      await refused(ROLE_TOO_LOW, removal(leaving, admin), 'a user removes an admin')
      await refused(ROLE_TOO_LOW, removal(admin, leaving), 'an admin removes a user')
      assert.deepEqual(roles(await remove(leaving, id, leaving.email)), [`${owner.email} owner`, `${admin.email} admin`])

      await refused(NO_BUCKET, leaving.bucket.retrieveUsers(id), 'who has left')
      await refused(NO_BUCKET, removal(leaving, leaving), 'who leaves again')
      assert.deepEqual(roles(await remove(admin, id, admin.email)), [`${owner.email} owner`])
    })

    it('always include an owner, who can neither leave nor be removed', TEST, async () => {
      const owner = person('owner')
      const [id, admin] = [await create(owner), await known('admin')]
      await invite(owner, id, admin.email)
      await setRole(owner, id, admin.email, 'admin')
      const removal = by => by.bucket.removeUser(id, { email: owner.email })

      await refused({ status: 403, code: 'owner_stays' }, removal(owner), 'the owner leaves')
      await refused(ROLE_TOO_LOW, removal(admin), 'an admin removes the owner')

      assert.equal(await role(owner, id), 'owner')
    })
  })

  describe('a hand-over', () => {
    it('answers the bucket, gives it to a member and leaves its old owner as admin', TEST, async () => {
      const owner = person('owner')
      const [id, heir] = [await create(owner), await known('heir')]
      await invite(owner, id, heir.email)
      const { updated_at: _, ...before } = await retrieve(owner, id)

      const bucket = await transfer(owner, id, heir.email.toUpperCase())

      const { _id, username } = await self(heir)
      const { updated_at: __, ...after } = bucket
      assert.deepEqual(after, {
        ...before, role: 'admin', credits: { ...before.credits, payer: { _id, username } }
      })
      assert.deepEqual(await retrieve(owner, id), bucket)
      assert.deepEqual([await role(owner, id), await role(heir, id)], ['admin', 'owner'])
      assert.deepEqual(roles(await users(heir, id)), [`${owner.email} admin`, `${heir.email} owner`])
      await refused(ROLE_TOO_LOW, owner.bucket.destroy(id), 'destroy')
      await refused(ROLE_TOO_LOW, owner.bucket.transferOwnership(id, { new_owner: owner.email }), 'transferOwnership')
      await setRole(heir, id, owner.email, 'user')
      assert.deepEqual(roles(await remove(owner, id, owner.email)), [`${heir.email} owner`])
    })

    it('is refused unless it is the owner\'s, to another member', TEST, async () => {
      const owner = person('owner')
      const [id, admin, stranger] = [await create(owner), await known('admin'), await known('stranger')]
      const waiting = uniqueEmail('invited')
      await invite(owner, id, admin.email)
      await invite(owner, id, waiting)
      await setRole(owner, id, admin.email, 'admin')
      const handOver = (by, email) => by.bucket.transferOwnership(id, { new_owner: email })

      for (const email of [stranger.email, waiting, uniqueEmail('nobody')]) {
        await refused(NO_MEMBER, handOver(owner, email), `to ${email}`)
      }
      await refused(bad('new_owner'), handOver(owner, owner.email), 'to the owner')
      await refused(bad('new_owner'), handOver(owner, 'nobody'), 'to no address')
      await refused(ROLE_TOO_LOW, handOver(admin, admin.email), 'by an admin')

      assert.deepEqual(roles(await users(owner, id)), [`${owner.email} owner`, `${admin.email} admin`])
    })

    it('is refused to who owns as many buckets as one person may', TEST, async () => {
      const owner = person('owner')
      const [id, full] = [await create(owner), person('full')]
      const theirs = await Promise.all(Array.from({ length: BUCKETS_PER_OWNER }, () => create(full)))
      await invite(owner, id, full.email)

      await refused({ status: 403, code: 'bucket_limit' },
        owner.bucket.transferOwnership(id, { new_owner: full.email }), 'transferOwnership')

      assert.deepEqual([await role(owner, id), await role(full, id)], ['owner', 'user'])
      await answer(full.bucket.destroy(theirs[0]), 'destroy')
      assert.equal((await transfer(owner, id, full.email)).role, 'admin')
    })
  })

  describe('a notification state', () => {
    it('is by e-mail until it is set, and `nonde` is another word for none', TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]
      await invite(owner, id, member.email)
      const entries = async (...states) => (await users(owner, id))
        .map(({ _id, email, username }, index) => ({ _id, email, username, state: states[index] }))

      for (const [state, stored] of [['none', 'none'], ['email', 'email'], ['nonde', 'none']]) {
        assert.deepEqual(await setState(member, id, member.email, state), await entries('email', stored), state)
      }
      assert.deepEqual(await setState(owner, id, owner.email, 'email'), await entries('email', 'none'))
    })

    it('is one\'s own to set, and only admins and the owner set others\'', TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]
      await invite(owner, id, member.email)
      const states = entries => entries.map(({ state }) => state)
      const setOwners = () => member.bucket.setNotificationState(id, { email: owner.email, state: 'none' })

      for (const low of ['user', 'developer']) {
        await setRole(owner, id, member.email, low)
        await refused(ROLE_TOO_LOW, setOwners(), `setNotificationState by ${low}`)
      }

      assert.deepEqual(states(await setState(owner, id, member.email, 'none')), ['email', 'none'])
      await setRole(owner, id, member.email, 'admin')
      assert.deepEqual(states(await setState(member, id, owner.email, 'none')), ['none', 'none'])
    })

    it('is refused when it is none, or nobody\'s', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const set = (email, state) => owner.bucket.setNotificationState(id, { email, state })

      await refused(bad('state'), set(owner.email, 'sms'), 'sms')
      await refused(bad('state'), set(owner.email, ''), 'no state')
      await refused(bad('email'), set('nobody', 'none'), 'no address')
      await refused(NO_MEMBER, set(uniqueEmail('nobody'), 'none'), 'a stranger')

      assert.deepEqual((await setState(owner, id, owner.email, 'email')).map(({ state }) => state), ['email'])
    })
  })

  describe('options', () => {
    it('come back in the bucket as they were sent, to their own user only', TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]
      await invite(owner, id, member.email)

      for (const options of [{ theme: 'dark', columns: ['cpu', { width: 1.5, ä: null }] }, { z: 1, a: false }, {}]) {
        const updated = await setOptions(member, id, options)

        assert.deepEqual(Object.keys(updated), ['bucket'])
        assert.equal(JSON.stringify(updated.bucket.user_options), JSON.stringify(options))
        assert.deepEqual(updated.bucket, await retrieve(member, id))
        assert.deepEqual((await retrieve(owner, id)).user_options, {})
      }
    })

    it('are an object, or the client or the API refuses them', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const options = { theme: 'dark' }
      await setOptions(owner, id, options)
      const update = options => owner.bucket.updateUserOptions(id, { options })

      await assert.rejects(within(5_000, update('dark'), 'a text'), { message: /^Invalid type for field options/ })
      await refused(bad('options'), update(['dark']), 'a list')
      await refused(bad('options'), update({ x: 'x'.repeat(8 * 1_024) }), 'too large')

      assert.deepEqual((await retrieve(owner, id)).user_options, options)
    })
  })

  describe('feedback', () => {
    it('of any member comes back as it was sent', TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]
      await invite(owner, id, member.email)

      for (const somebody of [owner, member]) {
        for (const feedback of ['Good', ' two\nlines, "quoted" – 後 ']) {
          assert.deepEqual(
            await answer(somebody.bucket.sendFeedback(id, { feedback }), 'sendFeedback'), { feedback })
        }
      }
    })

    it('is refused when it says nothing or too much', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)

      for (const feedback of ['', ' \n', 'x'.repeat(10_001)]) {
        await refused(bad('feedback'), owner.bucket.sendFeedback(id, { feedback }), 'sendFeedback')
      }
    })
  })

  describe('everything about people', () => {
    it('is 404 in a bucket that was never there or is somebody else\'s', TEST, async () => {
      const owner = person('owner')
      const [id, stranger] = [await create(owner), await known('stranger')]

      for (const elsewhere of [UNKNOWN_ID, id]) {
        for (const [what, call] of Object.entries(calls(stranger, elsewhere, stranger.email))) {
          assertProblem(await unresolved(call(), what), NO_BUCKET)
        }
        // The client gives up before it sends these.
        const { email } = stranger
        for (const [method, path, body] of [
          ['POST', 'add_user', { email }],
          ['GET', 'invitations'],
          ['DELETE', `invitation?email=${encodeURIComponent(email)}`, {}],
          ['GET', 'users_authorized'],
          ['POST', 'remove_user', { email }],
          ['POST', 'promote_user', { email, role: 'admin' }],
          ['POST', 'transfer_ownership', { new_owner: email }],
          ['POST', 'manage_notif', { email, state: 'none' }],
          ['PUT', 'user_options', { options: {} }],
          ['PUT', 'feedback', { feedback: 'Good' }]
        ]) {
          assertProblem(await plain(stranger, method, `/api/bucket/${elsewhere}/${path}`, body), NO_BUCKET)
        }
      }
      assert.deepEqual(roles(await users(owner, id)), [`${owner.email} owner`])
    })

    it('is 404 in a bucket that is gone, and under an id that cannot be one', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      await retrieve(owner, id)
      await answer(owner.bucket.destroy(id), 'destroy')
      const since = sent(version).length

      const every = [id, 'no-such-bucket'].flatMap(id => Object.entries(calls(owner, id, owner.email)))
      for (const [what, call] of every) await refused(NO_BUCKET, call(), what)

      const requests = lines(sent(version, since))
      assert.equal(requests.length, every.length, 'each call must have reached its own route')
      assertProblem(await invitations(owner, id), NO_BUCKET)
    })
  })

  it('the local stack keeps the mails to whom is invited, added and made owner', TEST, async t => {
    const outbox = () => raw(stack().origin, 'GET', '/_local/mail.json', {})
    if (process.env.BUCKET_API_URL && (await outbox()).status !== 200) return t.skip('this API sends its mails')
    const owner = person('owner')
    const [id, member, guest] = [await create(owner), await known('member'), uniqueEmail('guest')]
    /** The `count` mails to `email`, oldest first. */
    const mails = (email, count) => until(30_000, async () => {
      const { status, data } = await outbox()
      assert.equal(status, 200)
      const theirs = data.filter(({ to }) => to.includes(email)).reverse()
      return theirs.length >= count && theirs
    }, `${count} mails to ${email}`)
    const name = (await self(owner)).username

    await invite(owner, id, guest)
    await invite(owner, id, member.email)
    await mails(member.email, 1)
    await transfer(owner, id, member.email)

    const [invitation, added, newOwner] = [...await mails(guest, 1), ...await mails(member.email, 2)]
    for (const [mail, to, subject] of [
      [invitation, guest, `${name} invites you to Servers`],
      [added, member.email, `${name} has added you to Servers`],
      [newOwner, member.email, 'Servers is yours now']
    ]) {
      assert.deepEqual([mail.to, mail.cc, mail.bcc, mail.subject], [[to], [], [], subject])
      assert.match(mail.from, /^[^@\s]+@[^@\s]+$/)
      for (const part of [mail.text, mail.html]) {
        assert.ok(part.includes('Servers') && part.includes(name), part)
      }
      assert.ok(mail.text.includes(`/#/bucket/${id}`), mail.text)
    }
    assert.equal((await mails(guest, 1)).length + (await mails(member.email, 2)).length, 3)
  })
}

module.exports = { people }
