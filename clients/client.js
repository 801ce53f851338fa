'use strict'

// The published clients as their users get them, a record of what they send, and bounded waits.

const assert = require('node:assert/strict')
const { randomUUID } = require('node:crypto')
const { subscribe } = require('node:diagnostics_channel')
const http = require('node:http')
const path = require('node:path')
const { setTimeout: sleep } = require('node:timers/promises')

/** The published versions; `JS_API_VERSIONS` names some of them, with commas between. */
const VERSIONS = process.env.JS_API_VERSIONS?.split(',') ?? ['0.5.60', '0.8.1']
/** The OAuth application that the clients sign in as unless told otherwise. */
const CLIENT_ID = '795984050'
const CALL_MS = 20_000

// The clients would send even what is for loopback through a proxy.
for (const name of ['http_proxy', 'https_proxy', 'all_proxy', 'no_proxy']) {
  delete process.env[name]
  delete process.env[name.toUpperCase()]
}

/** A client of its own for `services` (`API` and `OAUTH`), which nobody has signed in to yet. */
function newClient (version, services) {
  // All clients of one loaded package share their options: load it afresh for each.
  const folder = path.sep + path.join('node_modules', `js-api-${version}`) + path.sep
  for (const file of Object.keys(require.cache)) {
    if (file.includes(folder)) delete require.cache[file]
  }
  const PM2IO = require(`js-api-${version}`)
  return new PM2IO({ services })
}

/** An address that no other test uses. */
function uniqueEmail (name) {
  return `${name}-${randomUUID().slice(0, 8)}@example.com`
}

/** What `promise` gives, or an error that names `what` if that takes longer than `ms`. */
async function within (ms, promise, what) {
  const timer = new AbortController()
  const late = sleep(ms, undefined, timer).then(() => {
    throw new Error(`${what}: nothing happened within ${ms} ms`)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    late.catch(() => {})
    timer.abort()
  }
}

/** The body of the 200 that a client's call must come to. */
async function answer (promise, what) {
  let response
  try {
    response = await within(CALL_MS, promise, what)
  } catch (error) {
    const { status, data } = error.response ?? error
    if (status === undefined) throw error
    throw new Error(`${what}: ${status} ${JSON.stringify(data)}`)
  }
  assert.equal(response.status, 200, what)
  return response.data
}

/** What a client's call rejects with, as it must. */
async function rejection (promise, what) {
  const outcome = await within(CALL_MS, promise.then(value => ({ value }), error => ({ error })), what)
  assert.ok('error' in outcome, `${what}: must be refused, but came to ${outcome.value?.status}`)
  return outcome.error
}

/** The refusal as clients hand it over once they know where a bucket is: the bare response. */
async function refusal (promise, what) {
  const error = await rejection(promise, what)
  if (error instanceof Error) throw new Error(`${what}: no response, but ${error}`, { cause: error })
  return error
}

/** The refusal of the request by which clients find out where a bucket is: an error with a response. */
async function unresolved (promise, what) {
  const error = await rejection(promise, what)
  assert.ok(error instanceof Error && error.response, `${what}: must reject with an error, got ${error}`)
  return error.response
}

/** Requires a refusal to carry everything that one must. */
function assertProblem ({ status, data, headers }, expected) {
  const { fields, ...rest } = expected
  assert.deepEqual({ status, code: data.code }, rest, JSON.stringify(data))
  assert.match(headers['content-type'], /^application\/problem\+json\b/)
  assert.equal(data.status, status)
  for (const member of ['type', 'title', 'detail', 'request_id', 'msg']) {
    assert.ok(typeof data[member] === 'string' && data[member] !== '', `${member} in ${JSON.stringify(data)}`)
  }
  assert.deepEqual(data.fields, fields)
  assert.deepEqual(data.errors?.map(({ field }) => field), fields)
}

/** Polls `condition` until it gives something truthy. */
async function until (ms, condition, what) {
  const deadline = Date.now() + ms
  for (;;) {
    const value = await condition()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms`)
    await sleep(100)
  }
}

const requests = []
const open = new WeakMap()
subscribe('http.client.request.start', ({ request }) => {
  const entry = {
    host: request.host,
    line: `${request.method} ${request.path}`,
    version: request.getHeader('x-js-api-version'),
    authorization: request.getHeader('authorization')
  }
  requests.push(entry)
  open.set(request, entry)
})
subscribe('http.client.response.finish', ({ request, response }) => {
  const entry = open.get(request)
  if (entry) entry.status = response.statusCode
})

/**
 * The requests that clients of `version` have sent so far, or since the moment `since` (how many
 * there were then).
 */
function sent (version, since = 0) {
  return requests.filter(entry => entry.version === version).slice(since)
}

/** Requests as lines such as `GET /api/bucket 200`. */
function lines (entries) {
  return entries.map(({ line, status }) => `${line} ${status}`)
}

/** An access token of who has the address `email`, got without a client. */
async function getToken (origin, email) {
  const body = { client_id: CLIENT_ID, refresh_token: email, grant_type: 'refresh_token' }
  const { status, data } = await raw(origin, 'POST', '/api/oauth/token', {}, body)
  assert.equal(status, 200, `POST /api/oauth/token: ${JSON.stringify(data)}`)
  return data.access_token
}

/** Sends a request without a client, its target to the letter as given. */
function raw (origin, method, target, headers, body) {
  const { hostname, port } = new URL(origin)
  const payload = JSON.stringify(body)
  const about = payload && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }
  const options = { method, hostname, port, path: target, headers: { ...about, ...headers } }
  const exchange = new Promise((resolve, reject) => {
    const request = http.request(options, response => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', chunk => { text += chunk })
      response.on('error', reject)
      response.on('end', () => {
        const isJson = /\bjson\b/.test(response.headers['content-type'])
        resolve({ status: response.statusCode, headers: response.headers, data: isJson ? JSON.parse(text) : text })
      })
    })
    request.on('error', reject)
    request.end(payload)
  })
  return within(CALL_MS, exchange, `${method} ${target}`)
}

module.exports = {
  CLIENT_ID,
  VERSIONS,
  answer,
  assertProblem,
  getToken,
  lines,
  newClient,
  raw,
  refusal,
  sent,
  uniqueEmail,
  unresolved,
  until,
  within
}
