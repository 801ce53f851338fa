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
    .replaceAll('token you@example.com', `token you@example.com --port ${port}`)
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

// Where each command that the documents name is run: a file, and what stands there. `readme.test.js` runs it itself.
const RUN = [
  [/^(TOKEN=|curl )/, 'clients/readme.test.js', "block('sh', 'create_classic')"],
  [/^cargo run( --)?$/, 'clients/stack.js', "['run', '--'"],
  [/^cargo run -- --(help|parameter-overrides)/, 'local/tests/command.rs', '"--help"'],
  [/^cargo run -p openapi$/, 'openapi/tests/document.rs', 'openapi::document'],
  [/^cargo run --release -p bench$/, 'bench/tests/bench.rs', 'bench::'],
  [/^cargo test --workspace$/, '.ci/run', 'step test cargo test --workspace'],
  // Without the variable they compare what they would write with it.
  [/^(UPDATE_\w+=1 )?cargo test -p functions (permissions|replay|costs)$/, '.ci/run', 'step test cargo test --workspace'],
  [/^cargo \+nightly fuzz run /, '.ci/run', 'cargo +nightly fuzz run'],
  [/^pm2 link /, 'clients/pm2.js', '--info-node'],
  [/^sam-local\/run( test)?$/, '.ci/run', 'sam-local/run test'],
  [/^schemathesis\/run$/, '.ci/run', 'schemathesis/run'],
  [/^\.ci\/run$/, '.github/workflows/ci.yml', '.ci/run']
]
// What nothing runs, and why.
const NOT_RUN = [
  [/^sam deploy( --guided)?$/, 'it needs an account at AWS; CI validates the template'],
  [/^cargo (lambda )?build --release/, 'it takes a quarter of an hour; CI builds the same for tests'],
  [/^pip install cargo-lambda ziglang$/, 'it is for the former']
]

describe('the documents', () => {
  for (const document of ['README.md', 'CONTRIBUTING.md', 'docs/architecture.md', 'docs/data-model.md']) {
    it(`name no command that is not run: ${document}`, () => {
      const read = file => fs.readFileSync(path.join(WORKSPACE, file), 'utf8')
      const text = read(document)
      const blocks = [...text.matchAll(/^```sh\n([^]*?)^```$/gm)]
        .flatMap(([, code]) => code.replaceAll('\\\n', '').split('\n').filter(Boolean))
      const inline = [...text.replace(/^```[^]*?^```$/gm, '').matchAll(/`([^`]+)`/g)].map(([, code]) => code)
        .filter(code => /^(UPDATE_\w+=1 )?(cargo|sam|npm|pm2|pip) |^(\.ci|schemathesis|sam-local)\/run/.test(code))
      const commands = [...blocks, ...inline].map(line => line.replace(/\s+#.*$/, '').replace(/\s+/g, ' ').trim())

      assert.ok(commands.length > 0 || document.startsWith('docs/'))
      for (const command of commands) {
        if (NOT_RUN.some(([pattern]) => pattern.test(command))) continue
        const run = RUN.find(([pattern]) => pattern.test(command))
        assert.ok(run, `nothing is known to run: ${command}`)
        const [, file, part] = run
        assert.ok(read(file).includes(part), `${file} does not run: ${command}`)
      }
    })
  }
})
