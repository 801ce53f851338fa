'use strict'

// The stack that the clients are driven against: started for the tests and ended with them, or one
// that runs already.

const { execFileSync, spawn } = require('node:child_process')
const { once } = require('node:events')
const { createServer } = require('node:net')
const path = require('node:path')
const { createInterface } = require('node:readline')
const { after, before } = require('node:test')
const { setTimeout: sleep } = require('node:timers/promises')

const WORKSPACE = path.resolve(__dirname, '..')
// The first start compiles everything.
const START_MS = 15 * 60_000
const STOP_MS = 20_000
const HOOK = { timeout: START_MS + 60_000 }

/**
 * Resolves with `{ origin, stop }` once the API answers: on `port` and with its data in the folder
 * `data`, so that it can be started again, or else on a free port and in memory. `BUCKET_API_URL`
 * names one that runs already, which is taken where neither is given, and which `stop` then leaves alone.
 */
async function start ({ port, data } = {}) {
  if (process.env.BUCKET_API_URL && !port && !data) {
    const { origin } = new URL(process.env.BUCKET_API_URL)
    await fetch(`${origin}/api/bucket`, { signal: AbortSignal.timeout(10_000) }).catch(error => {
      throw new Error(`no API answers at ${origin}: ${error.cause?.message ?? error.message}`)
    })
    return { origin, stop: async () => {} }
  }

  port ??= await freePort()
  const origin = `http://127.0.0.1:${port}`
  const args = ['run', '--', ...(data ? ['--data', data] : ['--memory']), '--port', String(port)]
  say(`Waiting for \`cargo ${args.join(' ')}\`; a first build takes minutes.`)
  const child = spawn('cargo', args, {
    cwd: WORKSPACE,
    // A group of its own, so that a build can be broken off with all its compilers.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe']
  })
  // Cargo becomes the stack, so this is the end of either.
  const ended = new Promise(resolve => {
    child.once('error', error => resolve(`cargo cannot be run: ${error.message}`))
    child.once('exit', (code, signal) => resolve(`it ended (${signal ?? `exit code ${code}`})`))
  })
  const isRunning = () => child.pid !== undefined && child.exitCode === null && child.signalCode === null
  // To stderr, since the runner reads results from stdout; without the line for each request.
  for (const output of [child.stdout, child.stderr]) {
    createInterface(output).on('line', line => line.includes('"level":"INFO"') || say(line))
  }

  // Whatever ends the tests ends the stack.
  process.once('exit', () => isRunning() && signal(-child.pid, 'SIGINT'))
  for (const name of ['SIGHUP', 'SIGINT', 'SIGTERM']) process.once(name, () => process.exit(1))

  try {
    await ready(origin, ended)
  } catch (error) {
    if (isRunning()) {
      signal(-child.pid, 'SIGINT')
      await Promise.race([ended, sleep(STOP_MS, undefined, { ref: false })])
    }
    throw error
  }

  // Without it, each test that is left would wait in vain.
  let stopping = false
  ended.then(reason => {
    if (stopping) return
    say(`The stack did not last until the end of the tests: ${reason}.`)
    process.exit(1)
  })
  const stop = async () => {
    stopping = true
    const functions = descendants(child.pid)
    child.kill('SIGINT')
    const inTime = await Promise.race([ended, sleep(STOP_MS, false, { ref: false })])
    if (!inTime) signal(-child.pid, 'SIGKILL')
    const left = functions.filter(pid => signal(pid, 'SIGKILL'))
    if (!inTime) throw new Error(`the stack did not end within ${STOP_MS} ms of SIGINT`)
    if (left.length > 0) throw new Error(`the stack left processes behind: ${left.join(', ')}`)
  }
  return { origin, stop }
}

/**
 * The stack for the tests of a file: started before them and ended after them, with an `origin` in between.
 * Where it does not start, or `check` of it rejects, there is nothing to test.
 */
function stackForTests (check = async () => {}) {
  const stack = {}
  before(async () => {
    try {
      Object.assign(stack, await start())
      await check()
    } catch (error) {
      console.error(error.message)
      process.exit(1)
    }
  }, HOOK)
  after(async () => {
    // The clients keep timers and sockets; none of them may keep the tests from ending.
    setTimeout(() => process.exit(), 60_000).unref()
    await stack.stop()
  }, HOOK)
  return stack
}

/** Tells a person; not through `console`, which tests listen to. */
function say (line) {
  process.stderr.write(`${line}\n`)
}

/** Resolves when the API answers; rejects when it has ended first or takes too long. */
async function ready (origin, ended) {
  const deadline = Date.now() + START_MS
  let end
  ended.then(reason => { end = reason })
  while (Date.now() < deadline) {
    if (end) throw new Error(`the stack did not start: ${end}`)
    try {
      const { ok } = await fetch(`${origin}/_local/health`, { signal: AbortSignal.timeout(1_000) })
      if (ok) return
    } catch {
      // Not yet.
    }
    await sleep(200)
  }
  throw new Error(`the stack did not start within ${START_MS / 60_000} minutes`)
}

async function freePort () {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

/** Sends a signal; false if there is nobody to get it. */
function signal (pid, name) {
  try {
    return process.kill(pid, name)
  } catch {
    return false
  }
}

/** The processes that `root` has started, and they in turn. */
function descendants (root) {
  const rows = execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' }).trim().split('\n')
  const processes = rows.map(row => row.trim().split(/\s+/).map(Number))
  const children = parent => processes.filter(([, ppid]) => ppid === parent).flatMap(([pid]) => [pid, ...children(pid)])
  return children(root)
}

module.exports = { stackForTests, start }
