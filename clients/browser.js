'use strict'

// A real browser, with everything noted that it complains of or asks others for.

const { existsSync } = require('node:fs')

const { chromium } = require('playwright-core')

const PROGRAMS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
// What asks the network for nothing of its own; a sandbox cannot be had as root.
const FLAGS = [
  '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])
]
const WAIT_MS = 15_000

/** The browser's program, which `CHROMIUM` names if it is in another place; undefined where there is none. */
function program () {
  return (process.env.CHROMIUM ? [process.env.CHROMIUM] : PROGRAMS).find(path => existsSync(path))
}

function launch () {
  return chromium.launch({ executablePath: program(), args: FLAGS, headless: true })
}

/**
 * Opens `url` in a fresh profile. `complaints` are the console's errors and warnings, exceptions, failed requests and
 * refused ones; `strangers` the requests to other origins than that of `url`.
 */
async function visit (browser, url, { width = 1280, height = 900, colorScheme = 'light' } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, locale: 'en-GB', reducedMotion: 'reduce' })
  const page = await context.newPage()
  page.setDefaultTimeout(WAIT_MS)
  const complaints = []
  const strangers = []
  const { origin } = new URL(url)
  page.on('console', message => {
    if (['error', 'warning'].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`)
  })
  page.on('pageerror', error => complaints.push(`exception: ${error.message}`))
  page.on('requestfailed', request => complaints.push(`failed: ${request.url()} ${request.failure()?.errorText}`))
  page.on('response', response => {
    if (response.status() >= 400) complaints.push(`${response.status()}: ${response.request().method()} ${response.url()}`)
  })
  page.on('request', request => {
    const { origin: asked, protocol } = new URL(request.url())
    if (protocol !== 'data:' && asked !== origin) strangers.push(request.url())
  })
  await page.goto(url)
  // The reference has been drawn.
  await page.locator('#swagger .opblock').first().waitFor()
  return { page, complaints, strangers, close: () => context.close() }
}

/** Signs in by the form. */
async function signIn (page, address) {
  await page.getByLabel('E-mail address').fill(address)
  await page.getByRole('button', { name: 'Sign in', exact: true }).click()
  await page.getByRole('status').getByText(`You are signed in as ${address}.`).waitFor()
}

/** Creates a bucket, which is open then. */
async function create (page, name) {
  await page.getByLabel('Name of a new bucket').fill(name)
  await page.getByRole('button', { name: 'Create', exact: true }).click()
  await page.locator('#bucket-name:focus').getByText(name, { exact: true }).waitFor()
}

/** Invites into the bucket that is open, whatever comes of it. */
async function invite (page, address, role) {
  await page.getByLabel('Invite an address').fill(address)
  await page.getByLabel('As', { exact: true }).selectOption(role)
  await page.getByRole('button', { name: 'Invite', exact: true }).click()
}

module.exports = { create, invite, launch, program, signIn, visit }
