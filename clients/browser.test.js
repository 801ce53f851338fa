'use strict'

// The local page in a real browser, against the running stack.

const assert = require('node:assert/strict')
const { readFileSync } = require('node:fs')
const { after, afterEach, before, describe, it } = require('node:test')

const { create, invite, launch, program, signIn, visit } = require('./browser')
const { uniqueEmail } = require('./client')
const { stackForTests } = require('./stack')

const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
const TEST = { timeout: 60_000 }
/** A name that would show if anything of it became markup. */
const HOSTILE = '<img src=x onerror="document.title=1"> & “co”'

const missing = program() ? undefined : 'there is no Chromium (apt: chromium, or CHROMIUM=path)'
if (missing && process.env.BROWSER_TESTS === 'required') throw new Error(`The tests in a browser cannot be run: ${missing}`)
if (missing) process.stderr.write(`WARNING: NOT RUN: the tests of the local page, because ${missing}\n`)

describe('the local page', { skip: missing && `NOT RUN: ${missing}` }, () => {
  const stack = stackForTests()
  let browser
  let visits = []
  before(async () => { browser = await launch() }, TEST)
  after(() => browser?.close(), TEST)
  afterEach(async () => {
    for (const { close } of visits) await close()
    visits = []
  })

  const open = async (options, hash = '') => {
    const opened = await visit(browser, `${stack.origin}/_local/${hash}`, options)
    visits.push(opened)
    return opened
  }
  /** Requires that the browser found nothing to complain of, and asked nobody else for anything. */
  const assertQuiet = ({ complaints, strangers }, expected = []) => {
    assert.deepEqual(complaints, expected)
    assert.deepEqual(strangers, [])
  }
  const place = url => [new URL(url).pathname, new URL(url).hash]
  const texts = (page, selector) => page.locator(selector).allInnerTexts()
  const lines = async (page, selector) => (await texts(page, selector)).map(text => text.replace(/\s+/g, ' ').trim())
  /** A page with somebody who has a bucket with an invitation, and its trail open. */
  const scene = async options => {
    const opened = await open(options)
    const owner = uniqueEmail('a-person-with-quite-a-long-address')
    await signIn(opened.page, owner)
    await create(opened.page, HOSTILE)
    const invitee = uniqueEmail('somebody-else-with-a-long-address')
    await invite(opened.page, invitee, 'developer')
    await opened.page.getByText('Audit trail', { exact: true }).click()
    await opened.page.locator('#mails li', { hasText: invitee }).waitFor()
    await opened.page.locator('#entries li').nth(1).waitFor()
    return { ...opened, owner, invitee }
  }

  it('takes two people from the first sign-in to one bucket', TEST, async () => {
    const opened = await open()
    const { page } = opened
    const [owner, invitee] = [uniqueEmail('owner'), uniqueEmail('invitee')]

    await signIn(page, owner)
    await create(page, HOSTILE)
    assert.equal(await page.locator('#bucket-name').innerText(), HOSTILE)
    await invite(page, invitee, 'developer')
    await page.locator('#invitations li', { hasText: invitee }).waitFor()

    // The mail comes by itself.
    const mail = page.locator('#mails li', { hasText: invitee })
    await mail.waitFor()
    assert.match(await mail.innerText(), /as developer/)
    assert.ok((await mail.innerText()).includes(HOSTILE))
    await page.getByRole('status').getByText(`New mail to ${invitee}`).waitFor()

    await mail.getByRole('button', { name: `Sign in as ${invitee}` }).click()
    await page.locator('#members li', { hasText: invitee }).waitFor()
    assert.deepEqual((await lines(page, '#members li')).sort(), [`${invitee} developer Leave`, `${owner} owner`].sort())
    assert.equal(await page.locator('#bucket-name').innerText(), HOSTILE)
    assert.equal(await page.locator('#invitations-part').isVisible(), false)

    await page.getByText('Audit trail', { exact: true }).click()
    await page.locator('#entries li').nth(2).waitFor()
    const trail = (await texts(page, '#entries li > span:not(.tag)')).map(text => text.replace(/\s+/g, ' '))
    assert.deepEqual(trail.map(text => text.replace(/ ?mailed$/, '')), [
      `${invitee} took up an invitation, as developer`,
      `${owner} invited ${invitee}, as developer`,
      `${owner} created the bucket`
    ])

    // One click, and the owner is back, and gives a role.
    await page.getByRole('button', { name: owner, exact: true }).click()
    await page.getByLabel(`Role of ${invitee}`, { exact: true }).selectOption('admin')
    await page.getByRole('button', { name: `Set the role of ${invitee}` }).click()
    await page.getByRole('status').getByText(`${invitee} is admin now.`).waitFor()
    await page.locator('#entries li').nth(3).waitFor()
    assert.match((await lines(page, '#entries li'))[0], /gave a role to .*, as admin$/)
    assert.equal(await page.title(), 'bucket-api on this machine')
    assertQuiet(opened)
  })

  it('opens the bucket that a mail links to, and remembers who is signed in in this tab alone', TEST, async () => {
    const { page, owner } = await scene()
    const link = /http\S+#\/bucket\/[0-9a-f]{24}/.exec((await texts(page, '#mails li'))[0])?.[0]
    assert.deepEqual(place(link), place(page.url()))

    await page.reload()
    await page.locator('#bucket-name').getByText(HOSTILE, { exact: true }).waitFor()
    assert.equal(await page.locator('#me-address').innerText(), owner)
    assert.equal(await page.evaluate(() => localStorage.length), 0)

    const other = await open({}, new URL(link).hash)
    await other.page.getByRole('status').getByText('Sign in as a member').waitFor()
    await signIn(other.page, owner)
    await other.page.locator('#bucket-name').getByText(HOSTILE, { exact: true }).waitFor()
    await other.page.getByRole('button', { name: 'Sign out' }).click()
    assert.equal(await other.page.locator('#bucket').isVisible(), false)
    assert.equal(await other.page.evaluate(() => sessionStorage.getItem('session')), null)
    assertQuiet(other)
  })

  it('says what the API refuses', TEST, async () => {
    const opened = await scene()
    const { page, owner } = opened
    await invite(page, owner, 'user')
    await page.locator('#status.refusal').waitFor()
    assert.match(await page.locator('#status').innerText(), /already/)
    const refused = opened.complaints.filter(line => line.startsWith('400: POST'))
    assert.equal(refused.length, 1, opened.complaints.join('\n'))
    assert.deepEqual(opened.strangers, [])
  })

  it('calls the API from its reference as who is signed in', TEST, async () => {
    const opened = await scene()
    const { page } = opened
    const operation = page.locator('#swagger .opblock', { hasText: '/api/bucket/create_classic' })
    await operation.getByRole('button').first().click()
    await operation.getByRole('button', { name: 'Try it out' }).click()
    await operation.locator('textarea').first().fill('{"name":"From the reference"}')
    await operation.getByRole('button', { name: 'Execute' }).click()
    await operation.locator('.live-responses-table .response .response-col_status', { hasText: '200' }).waitFor()
    // What the call has changed is on the page.
    await page.locator('#list li', { hasText: 'From the reference' }).waitFor()
    assertQuiet(opened)
  })

  it('has headings in order, labels, no fault that axe knows, and fits, wide or narrow, in light and in the dark', TEST, async () => {
    const opened = await scene()
    const { page } = opened
    await page.getByText('Link a server with pm2').click()
    const operation = page.locator('#swagger .opblock', { hasText: '/api/bucket/create_classic' })
    await operation.getByRole('button').first().click()
    await operation.getByRole('button', { name: 'Try it out' }).click()
    await page.evaluate(AXE)

    const { levels, unnamed } = await page.evaluate(() => {
      const own = element => !element.closest('#swagger > *')
      const headings = [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].filter(own)
      const controls = [...document.querySelectorAll('input, select, textarea')].filter(own)
      return {
        levels: headings.filter(element => element.checkVisibility()).map(element => Number(element.localName[1])),
        unnamed: controls.filter(element => !element.labels?.length && !element.ariaLabel).map(element => element.outerHTML)
      }
    })
    assert.equal(levels[0], 1)
    levels.slice(1).forEach((level, index) => assert.ok(level > 1 && level <= levels[index] + 1, levels.join(' ')))
    assert.deepEqual(unnamed, [])

    for (const width of [1280, 800, 390]) {
      for (const colorScheme of ['light', 'dark']) {
        await page.setViewportSize({ width, height: 844 })
        await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })

        const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth])
        assert.ok(inner <= outer, `the page is ${inner} px wide in ${outer}`)
        const faults = await page.evaluate(async () => {
          // What Swagger UI draws is its own.
          const { violations } = await window.axe.run({ exclude: ['#swagger > *'] })
          return violations.flatMap(({ id, nodes }) => nodes.map(node => `${id}: ${node.target} ${node.failureSummary}`))
        })
        assert.deepEqual(faults, [], `${width} px, ${colorScheme}`)
      }
    }
    assertQuiet(opened)
  })

  it('is worked with the keyboard alone, in the order in which it is read', TEST, async () => {
    const opened = await scene()
    const { page } = opened
    await page.reload()
    await page.locator('#members li').first().waitFor()
    await page.locator('#mails li').first().waitFor()
    await page.locator('#swagger .opblock').first().waitFor()
    const expected = await page.evaluate(() => {
      const all = 'a[href], button, input, select, textarea, summary, [tabindex="0"]'
      const seen = [...document.querySelectorAll(all)].filter(element =>
        element.checkVisibility() && !element.closest('#swagger > *') && element.tabIndex >= 0)
      seen.forEach((element, index) => { element.dataset.stop = index })
      return seen.map(element => element.innerText || element.getAttribute('aria-label') || element.id)
    })
    assert.ok(expected.length > 15, expected.join(', '))

    const stops = []
    const unmarked = []
    let sum = 0
    for (let step = 0; step < 400 && stops.length < expected.length; step++) {
      await page.keyboard.press('Tab')
      const { stop, marked, top } = await page.evaluate(() => {
        const element = document.activeElement
        const { outlineStyle, outlineWidth } = getComputedStyle(element)
        const { top, bottom } = element.getBoundingClientRect()
        return {
          stop: element.dataset.stop, marked: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2,
          top: bottom > 0 && top < innerHeight
        }
      })
      if (stop === undefined) continue
      stops.push(expected[Number(stop)])
      if (!marked || !top) unmarked.push(expected[Number(stop)])
      sum += 1
    }
    assert.equal(sum, expected.length)
    assert.deepEqual(stops, expected)
    assert.deepEqual(unmarked, [], 'the focus does not show')
    assert.deepEqual(expected.slice(0, 5),
      ['Skip to the content', 'Buckets', 'Outbox', 'API reference', 'Sign out'])

    // And it does something.
    await page.locator('#name').focus()
    await page.keyboard.type('By keyboard')
    await page.keyboard.press('Enter')
    await page.locator('#bucket-name:focus').getByText('By keyboard', { exact: true }).waitFor()
    assertQuiet(opened)
  })
})
