'use strict'

// pm2 as its users run it: by its command line. What it knows and what it starts belong to a home, each of
// which is a folder of its own here.

const assert = require('node:assert/strict')
const { execFile, execFileSync, spawn } = require('node:child_process')
const { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } = require('node:fs')
const { tmpdir } = require('node:os')
const path = require('node:path')

const { until } = require('./client')

const PM2 = require.resolve('pm2/bin/pm2')
const { version: VERSION } = require('pm2/package.json')
const COMMAND_MS = 60_000
const END_MS = 10_000
/** macOS takes the fewest bytes in the address of a Unix socket. */
const SOCKET_BYTES = 103

/** The folder of all homes. */
let root
let homes = 0

/** An empty home, which is gone with all that was started in it at the end of the test `t`. */
function newHome (t) {
  root ??= newRoot()
  const home = path.join(root, String(++homes))
  const longest = Buffer.byteLength(path.join(home, 'interactor.sock'))
  assert.ok(longest <= SOCKET_BYTES, `${tmpdir()} is too long for the sockets of pm2: set TMPDIR to a shorter one`)
  mkdirSync(home)
  // Without it, pm2 tells its makers that it was installed.
  writeFileSync(path.join(home, 'touch'), '')
  t.after(() => end(home))
  return home
}

function newRoot () {
  const folder = mkdtempSync(path.join(realpathSync(tmpdir()), 'pm2-'))
  // pm2's daemons are made to last. However these tests end, this outlives them to end what is left.
  const reaper = spawn(process.execPath, [__filename, folder], { detached: true, stdio: ['pipe', 'ignore', 'inherit'] })
  reaper.unref()
  reaper.stdin.unref()
  return folder
}

/** Runs a command of pm2, and gives its exit code and what it printed. */
function pm2 (home, ...args) {
  // Nothing else of the environment: pm2 takes keys and addresses from it.
  const env = { PATH: process.env.PATH, HOME: home, PM2_HOME: home, PM2_DISABLE_VERSION_CHECK: 'true', NO_COLOR: '1' }
  const options = { cwd: home, env, timeout: COMMAND_MS, killSignal: 'SIGKILL' }
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [PM2, ...args], options, (error, stdout, stderr) => {
      const printed = stdout + stderr
      if (typeof (error?.code ?? 0) === 'number' && !error?.signal) return resolve({ code: error?.code ?? 0, printed })
      reject(new Error(`pm2 ${args[0]}: ${error.message}\n${printed}${logs(home)}`, { cause: error }))
    })
  })
}

/** Links the server `name` with the keys of a bucket. */
function link (home, origin, keys, name) {
  return pm2(home, 'link', keys.secret_id, keys.public_id, name, '--info-node', origin)
}

/** The process of the home's agent. */
function agentPid (home) {
  return Number(readFileSync(path.join(home, 'agent.pid'), 'utf8'))
}

/** What pm2 and its agent wrote down: it says why a test failed. */
function logs (home) {
  return ['agent.log', 'pm2.log'].map(name => {
    try {
      return `--- ${name}\n${readFileSync(path.join(home, name), 'utf8').slice(-4_000)}`
    } catch {
      return ''
    }
  }).join('\n')
}

/** Ends what runs in a home, politely if possible. */
async function end (home) {
  try {
    // It starts what it is to end, if that does not run.
    if (processes(home).length > 0) await pm2(home, 'kill')
  } finally {
    await kill(home)
  }
}

/** Ends what runs in a home, or in the homes of a folder, and deletes it. */
async function kill (folder) {
  await until(END_MS, () => {
    const left = processes(folder)
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It has ended meanwhile.
      }
    }
    return left.length === 0
  }, `the end of what pm2 runs in ${folder}`)
  rmSync(folder, { recursive: true, force: true })
}

/** The processes that have a home in `folder`: pm2 hands it on to everything that it starts. */
function processes (folder) {
  const rows = execFileSync('ps', ['axeww', '-o', 'pid=,command='], { encoding: 'utf8', maxBuffer: 64 << 20 })
  const inside = new RegExp(` PM2_HOME=${folder.replace(/[^\w/]/g, '\\$&')}(/\\S*)?( |$)`)
  return rows.split('\n').filter(row => inside.test(row)).map(row => parseInt(row, 10))
}

if (require.main === module) {
  // Nobody writes: this ends with whoever could.
  process.stdin.resume().on('error', () => {}).on('close', () => kill(process.argv[2]))
}

module.exports = { VERSION, agentPid, link, logs, newHome, pm2 }
