'use strict'

// What the clients do about people: invitations, members, roles, hand-over, notifications.

const assert = require('node:assert/strict')
const { describe, it } = require('node:test')

const { answer, assertProblem, newClient, refusal, uniqueEmail, until } = require('./client')

const TEST = { timeout: 120_000 }
const SEATS = 5

/** Registers the tests for `version`; `stack()` gives the running one. */
function people (version, stack) {
  /** Somebody with an address and a client that signs in by it. */
  const person = (name, email = uniqueEmail(name)) => {
    const { origin } = stack()
    const client = newClient(version, { API: origin, OAUTH: origin }).use('standalone', { refresh_token: email })
    return { email, bucket: client.bucket }
  }
  /** The same, who has signed in. */
  const known = async name => {
    const somebody = person(name)
    await answer(somebody.bucket.retrieveAll(), 'retrieveAll')
    return somebody
  }
  const create = async owner => (await answer(owner.bucket.create({ name: 'Servers' }), 'create')).bucket._id
  const invite = (by, id, email) => answer(by.bucket.inviteUser(id, { email }), 'inviteUser')
  const members = async (by, id) => {
    const list = await answer(by.bucket.retrieveUsers(id), 'retrieveUsers')
    return list.map(({ email, role }) => `${email} ${role}`)
  }
  const role = async (of, id) => (await answer(of.bucket.currentRole(id), 'currentRole')).role
  const setRole = (by, id, email, role) => answer(by.bucket.setUserRole(id, { email, role }), 'setUserRole')

  describe('people', () => {
    it('an address without account is invited, and a member from its first sign-in on', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const address = uniqueEmail('new')

      const { invitations } = await invite(owner, id, address.toUpperCase())

      assert.deepEqual(invitations.map(({ email, role }) => ({ email, role })), [{ email: address, role: 'user' }])
      assert.match(invitations[0].invited_by, /^[0-9a-f]{24}$/)
      assert.ok(Date.parse(invitations[0].expires_at) > Date.parse(invitations[0].created_at))
      const again = await invite(owner, id, address)
      assert.equal(again.invitations.length, 1)
      const newcomer = person('new', address)
      assert.equal(await role(newcomer, id), 'user')
      assert.deepEqual(await members(owner, id), [`${owner.email} owner`, `${newcomer.email} user`])
    })

    it('a person with an account is a member at once', TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]

      assert.deepEqual(await invite(owner, id, member.email), { invitations: [] })

      const list = await answer(member.bucket.retrieveUsers(id), 'retrieveUsers')
      assert.deepEqual(Object.keys(list[1]).sort(), ['_id', 'email', 'role', 'username'])
      const refused = await refusal(owner.bucket.inviteUser(id, { email: member.email }), 'inviteUser')
      assertProblem(refused, { status: 400, code: 'already_member' })
    })

    it('a full bucket says so', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      for (let seat = 1; seat < SEATS; seat += 1) await invite(owner, id, uniqueEmail('seat'))

      const refused = await refusal(owner.bucket.inviteUser(id, { email: uniqueEmail('late') }), 'inviteUser')

      assertProblem(refused, { status: 403, code: 'seat_limit' })
    })

    it('an invitation is removed by the address as each client encodes it', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const email = uniqueEmail('a+b')
      await invite(owner, id, email)

      const left = await answer(owner.bucket.removeInvitation(id, email), 'removeInvitation')

      assert.deepEqual(left, { invitations: [] })
      assertProblem(await refusal(owner.bucket.removeInvitation(id, email), 'removeInvitation'),
        { status: 404, code: 'invitation_not_found' })
    })

    it('a role counts from the next request on, and the owner is nobody\'s to set', TEST, async () => {
      const owner = person('owner')
      const [id, member, guest] = [await create(owner), await known('member'), uniqueEmail('guest')]
      await invite(owner, id, member.email)
      assertProblem(await refusal(member.bucket.inviteUser(id, { email: guest }), 'inviteUser'),
        { status: 403, code: 'role_too_low' })

      const list = await setRole(owner, id, member.email, 'admin')

      assert.equal(list[1].role, 'admin')
      await invite(member, id, guest)
      await setRole(owner, id, member.email, 'developer')
      assertProblem(await refusal(member.bucket.inviteUser(id, { email: guest }), 'inviteUser'),
        { status: 403, code: 'role_too_low' })
      assertProblem(await refusal(owner.bucket.setUserRole(id, { email: owner.email, role: 'user' }), 'setUserRole'),
        { status: 403, code: 'owner_role_fixed' })
      assertProblem(await refusal(owner.bucket.setUserRole(id, { email: member.email, role: 'owner' }), 'setUserRole'),
        { status: 400, code: 'invalid_input', fields: ['role'] })
    })

    it('who is removed is out with the next request, and others may leave', TEST, async () => {
      const owner = person('owner')
      const [id, removed, leaving] = [await create(owner), await known('removed'), await known('leaving')]
      await invite(owner, id, removed.email)
      await invite(owner, id, leaving.email)
      assert.equal(await role(removed, id), 'user')

      const list = await answer(owner.bucket.removeUser(id, { email: removed.email }), 'removeUser')

      assert.deepEqual(list.map(({ email }) => email), [owner.email, leaving.email])
      assertProblem(await refusal(removed.bucket.currentRole(id), 'currentRole'),
        { status: 404, code: 'bucket_not_found' })
      await answer(leaving.bucket.removeUser(id, { email: leaving.email }), 'removeUser')
      assert.deepEqual(await members(owner, id), [`${owner.email} owner`])
      assertProblem(await refusal(owner.bucket.removeUser(id, { email: owner.email }), 'removeUser'),
        { status: 403, code: 'owner_stays' })
      assertProblem(await refusal(owner.bucket.removeUser(id, { email: removed.email }), 'removeUser'),
        { status: 404, code: 'user_not_found' })
    })

    it('a bucket is handed over to a member, and the old owner is admin', TEST, async () => {
      const owner = person('owner')
      const [id, heir] = [await create(owner), await known('heir')]
      const transfer = () => owner.bucket.transferOwnership(id, { new_owner: heir.email })
      assertProblem(await refusal(transfer(), 'transferOwnership'), { status: 404, code: 'user_not_found' })
      await invite(owner, id, heir.email)

      const bucket = await answer(transfer(), 'transferOwnership')

      assert.equal(bucket._id, id)
      assert.equal(bucket.credits.payer.username, heir.email.split('@')[0])
      assert.deepEqual(await members(heir, id), [`${owner.email} admin`, `${heir.email} owner`])
      assertProblem(await refusal(owner.bucket.destroy(id), 'destroy'), { status: 403, code: 'role_too_low' })
    })

    it('notification states are set, one\'s own by anybody and others\' by admins', TEST, async () => {
      const owner = person('owner')
      const [id, member] = [await create(owner), await known('member')]
      await invite(owner, id, member.email)
      const set = (by, email, state) => by.bucket.setNotificationState(id, { email, state })

      const own = await answer(set(member, member.email, 'nonde'), 'setNotificationState')
      assert.deepEqual(own.map(({ state }) => state), ['email', 'none'])
      assert.deepEqual(Object.keys(own[0]).sort(), ['_id', 'email', 'state', 'username'])
      const others = await answer(set(owner, member.email, 'email'), 'setNotificationState')
      assert.deepEqual(others.map(({ state }) => state), ['email', 'email'])
      assertProblem(await refusal(set(member, owner.email, 'none'), 'setNotificationState'),
        { status: 403, code: 'role_too_low' })
    })

    it('options are one\'s own, and feedback comes back', TEST, async () => {
      const owner = person('owner')
      const id = await create(owner)
      const options = { theme: 'dark', columns: ['cpu', { width: 1.5 }] }

      const { bucket } = await answer(owner.bucket.updateUserOptions(id, { options }), 'updateUserOptions')

      assert.deepEqual(bucket.user_options, options)
      assert.deepEqual(await answer(owner.bucket.sendFeedback(id, { feedback: 'Good' }), 'sendFeedback'),
        { feedback: 'Good' })
    })

    it('invitations, additions and new owners are mailed', TEST, async () => {
      const { origin } = stack()
      const outbox = async () => (await fetch(`${origin}/_local/mail.json`)).json()
      const owner = person('owner')
      const [id, member, guest] = [await create(owner), await known('member'), uniqueEmail('guest')]
      await invite(owner, id, guest)
      await invite(owner, id, member.email)
      await answer(owner.bucket.transferOwnership(id, { new_owner: member.email }), 'transferOwnership')

      const subjects = async email => (await outbox()).filter(({ to }) => to[0] === email).map(({ subject }) => subject)
      const name = owner.email.split('@')[0]
      await until(20_000, async () => (await subjects(member.email)).length === 2, 'both mails arrive')
      assert.deepEqual(await subjects(guest), [`${name} invites you to Servers`])
      assert.deepEqual(await subjects(member.email), ['Servers is yours now', `${name} has added you to Servers`])
    })
  })
}

module.exports = { people }
