'use strict'

// What the clients do about plans: the list of them, trials, upgrades, subscriptions and invoices, where no
// money is taken.

const assert = require('node:assert/strict')
const { describe, it } = require('node:test')

const { answer, assertProblem, getToken, newClient, raw, refusal, uniqueEmail } = require('./client')

const TEST = { timeout: 120_000 }
const TRIAL_DAYS = 14
const DAY_S = 24 * 60 * 60

/** Registers the tests for `version`; `stack()` gives the running one. */
function plans (version, stack) {
  /** Somebody with a bucket, and a client that signs in by an address of their own. */
  const owner = async () => {
    const { origin } = stack()
    const email = uniqueEmail('owner')
    const client = newClient(version, { API: origin, OAUTH: origin }).use('standalone', { refresh_token: email })
    const { bucket } = await answer(client.bucket.create({ name: 'Servers' }), 'create')
    return { client, email, id: bucket._id }
  }
  /** 0.8.1 has no method for two of the routes that it still may meet. */
  const plain = async ({ email, id }, path) => {
    const authorization = `Bearer ${await getToken(stack().origin, email)}`
    return raw(stack().origin, 'GET', `/api/bucket/${id}/${path}`, { authorization })
  }

  describe('plans', () => {
    it('are listed by name, and a bucket names its own in every place that clients look', TEST, async () => {
      const { client, id } = await owner()

      const listed = await answer(client.misc.retrievePlans(), 'retrievePlans')

      const { credits, payment } = await answer(client.bucket.retrieve(id), 'retrieve')
      assert.deepEqual(listed[credits.offer_type], {
        seats: 5, servers: 2, trial_days: 0, price_lookup_key: null, self_service: true
      })
      assert.equal(payment.offer_type, credits.offer_type)
    })

    it('are switched by the owner, with the bucket and no subscription for an answer', TEST, async () => {
      const { client, id } = await owner()

      for (const plan of ['plus', 'pro', 'free']) {
        const { bucket, subscription, ...rest } = await answer(client.bucket.upgrade(id, { plan }), 'upgrade')
        assert.deepEqual([bucket._id, bucket.credits.offer_type, subscription, rest], [id, plan, null, {}])
      }
    })

    it('that there are not, or that are not for oneself, are refused', TEST, async () => {
      const { client, id } = await owner()

      assertProblem(await refusal(client.bucket.upgrade(id, { plan: 'gold' }), 'upgrade'),
        { status: 400, code: 'invalid_input', fields: ['plan'] })
      assertProblem(await refusal(client.bucket.upgrade(id, { plan: 'enterprise' }), 'upgrade'),
        { status: 403, code: 'plan_not_allowed' })
    })

    it('are tried once, with the end in seconds as the subscription says', TEST, async () => {
      const { client, email, id } = await owner()

      assert.deepEqual(await answer(client.bucket.claimTrial(id), 'claimTrial'), { duration: '14 days', plan: 'plus' })

      const end = Date.now() / 1000 + TRIAL_DAYS * DAY_S
      const { status, headers, data } = await plain({ email, id }, 'subscription')
      assert.deepEqual([status, headers.deprecation], [200, '@1563408000'])
      assert.ok(Math.abs(data.trial_end - end) < 60, JSON.stringify(data))
      if (client.bucket.getSubscription) {
        assert.deepEqual(await answer(client.bucket.getSubscription(id), 'getSubscription'), data)
      }
      const { credits } = await answer(client.bucket.retrieve(id), 'retrieve')
      assert.equal(credits.offer_type, 'plus')
      assertProblem(await refusal(client.bucket.claimTrial(id), 'claimTrial'), { status: 400, code: 'trial_unavailable' })
    })

    it('that nothing is paid for have no subscription and no invoices', TEST, async () => {
      const { client, email, id } = await owner()

      const { status, data } = await plain({ email, id }, 'subscription')
      assert.deepEqual([status, data.code], [404, 'subscription_not_found'])
      assert.deepEqual((await plain({ email, id }, 'payment/charges')).data, [])
      if (client.bucket.getSubscription) {
        assertProblem(await refusal(client.bucket.getSubscription(id), 'getSubscription'),
          { status: 404, code: 'subscription_not_found' })
        assert.deepEqual(await answer(client.bucket.retrieveCharges(id), 'retrieveCharges'), [])
      }
    })
  })
}

module.exports = { plans }
