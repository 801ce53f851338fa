'use strict'

// Runs what README.md tells people to run against the API, as it stands there.

const assert = require('node:assert/strict')
const { execFile } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { describe, it } = require('node:test')
const { promisify } = require('node:util')

const { stackForTests } = require('./stack')

const WORKSPACE = path.resolve(__dirname, '..')
const TEST = { timeout: 300_000 }
const stack = stackForTests()

/** The only block of `language` in README.md that has `part` in it, with the port of the stack. */
function block (language, part) {
  const readme = fs.readFileSync(path.join(WORKSPACE, 'README.md'), 'utf8')
  const blocks = [...readme.matchAll(/^```(\w+)\n([^]*?)^```$/gm)]
    .filter(([, found, code]) => found === language && code.includes(part))
  assert.equal(blocks.length, 1, `${blocks.length} blocks of ${language} with ${part}`)
  const { port } = new URL(stack.origin)
  return blocks[0][2].replaceAll('127.0.0.1:3000', `127.0.0.1:${port}`)
    .replaceAll('cargo run -q -- token', `cargo run -q -- --port ${port} token`)
}

async function run (program, ...args) {
  const { stdout } = await promisify(execFile)(program, args, { cwd: WORKSPACE, timeout: 240_000 })
  return stdout
}

describe('README.md', () => {
  it('creates a bucket and lists it with curl', TEST, async () => {
    const lines = (await run('bash', '-euc', block('sh', 'create_classic').replaceAll('curl -s ', 'echo; curl -s '))).trim()

    const [created, listed] = lines.split('\n').filter(Boolean).map(line => JSON.parse(line))
    assert.equal(created.bucket.name, 'My servers')
    assert.deepEqual(listed.map(({ _id }) => _id), [created.bucket._id])
  })

  it('lists the buckets with the published client', TEST, async () => {
    // Its timers keep it from ending, as they do a reader's script.
    const code = `${block('js', 'retrieveAll')}.finally(() => process.exit())`
      .replace("require('@pm2/js-api')", `require('${path.join(__dirname, 'node_modules/js-api-0.8.1')}')`)
    const printed = await run('node', '-e', code)

    assert.match(printed, /My servers/)
  })
})
