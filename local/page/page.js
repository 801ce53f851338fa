// The local page. Everything that it shows was written by users, and goes into the page as text alone.

/** A client that the local provider takes for any deployment. */
const CLIENT_ID = 'bucket-api'
const MAILS = 50
/** How often the page looks for what is new. */
const FOLLOW_MS = 2_000
/** How long something that went well is told: the page shows it anyway. */
const TOLD_MS = 8_000
const ROLES = ['user', 'developer', 'admin']
/** Seconds before its end that a token is renewed. */
const RENEW = 60
const BUCKET_HASH = /^#\/bucket\/([0-9a-f]{24})$/
const BUCKET_LINK = /#\/bucket\/([0-9a-f]{24})\b/

const ACTIONS = {
  create: 'created the bucket',
  update: 'changed what the bucket says of itself',
  delete: 'deleted the bucket',
  invite: 'invited',
  remove_invitation: 'took back the invitation of',
  clear_invitation: 'cleared the invitation of',
  add_user: 'added',
  accept_invitation: 'took up an invitation',
  remove_user: 'removed',
  leave: 'left',
  change_address: 'came under another address',
  set_role: 'gave a role to',
  link_server: 'linked the server',
  delete_server: 'deleted the server',
  rotate_secret: 'gave the bucket another secret',
  upgrade: 'put the bucket on a plan',
  sync_subscription: 'changed what pays for the bucket',
  claim_trial: 'began a trial',
  transfer_ownership: 'handed the bucket over to',
  set_notification_state: 'set the notifications of',
  update_user_options: 'set their own options',
  send_feedback: 'sent feedback'
}

const byId = id => document.getElementById(id)

/** An element with `properties`, and `children` that are elements or text. */
function make (tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties)
  element.append(...children.filter(child => child !== undefined))
  return element
}

// What the page knows.

/** `{ address, token, expires }` of who is signed in; this tab forgets it when it is closed. */
let session = stored('session', null)
/** Addresses that were used in this tab, the last one first. */
let used = stored('used', [])
let buckets = []
/** The id of the bucket that is open. */
let open = null
/** Counts what was asked for, so that a late answer to something earlier is dropped. */
let turn = 0

function stored (name, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(name)) ?? otherwise
  } catch {
    return otherwise
  }
}

const store = (name, value) => sessionStorage.setItem(name, JSON.stringify(value))

// Talking.

/** What a server refused. */
class Refusal extends Error {
  constructor (status, message) {
    super(message)
    this.status = status
  }
}

async function send (method, path, { body, token } = {}) {
  const headers = {}
  if (token) headers.authorization = `Bearer ${token}`
  const isForm = body instanceof URLSearchParams
  if (body && !isForm) headers['content-type'] = 'application/json'
  let response
  try {
    response = await fetch(path, { method, headers, body: body && !isForm ? JSON.stringify(body) : body })
  } catch {
    throw new Refusal(0, 'The stack does not answer. Is it still running?')
  }
  const answer = await response.json().catch(() => null)
  if (!response.ok) {
    const reason = answer?.detail ?? answer?.error_description ?? answer?.message ?? response.statusText
    throw new Refusal(response.status, reason)
  }
  return answer
}

async function newSession (address) {
  const grant = { grant_type: 'refresh_token', client_id: CLIENT_ID, refresh_token: address }
  const answer = await send('POST', '/_local/oidc/token', { body: new URLSearchParams(grant) })
  return { address, token: answer.access_token, expires: Date.now() + answer.expires_in * 1000 }
}

/** Has a token that is good for a while yet. */
async function renew () {
  const { address, expires } = session
  if (expires - RENEW * 1000 >= Date.now()) return
  const next = await newSession(address)
  if (session?.address === address) keep(next)
}

/** Calls the API as who is signed in. */
async function api (method, path, body) {
  if (session) await renew()
  if (!session) throw new Refusal(401, 'You are signed out.')
  const { address } = session
  try {
    return await send(method, path, { body, token: session.token })
  } catch (error) {
    // A stack that keeps nothing has another key after a restart.
    if (error.status !== 401 || session?.address !== address) throw error
    keep(await newSession(address))
    return send(method, path, { body, token: session.token })
  }
}

const inBucket = (path, id = open) => `/api/bucket/${encodeURIComponent(id)}/${path}`

let fading = 0

/** Tells what came of something, to eyes and ears. A refusal stays until something else is told. */
function tell (text, isRefusal = false) {
  const status = byId('status')
  status.textContent = text
  status.classList.toggle('refusal', isRefusal)
  clearTimeout(fading)
  if (!isRefusal) fading = setTimeout(() => { status.textContent = '' }, TOLD_MS)
}

/** Does `work` that a button stands for, and tells what came of it. */
async function act (button, work) {
  if (button?.getAttribute('aria-disabled') === 'true') return
  button?.setAttribute('aria-disabled', 'true')
  try {
    const told = await work()
    if (told) tell(told)
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    tell(error.message, true)
  } finally {
    button?.removeAttribute('aria-disabled')
  }
}

function onSubmit (id, work) {
  byId(id).addEventListener('submit', event => {
    event.preventDefault()
    act(event.submitter ?? event.target.querySelector('[type=submit]'), () => work(event.target.elements, event.target))
  })
}

// Signing in.

async function signIn (address, bucket) {
  const next = await newSession(address.trim().toLowerCase())
  turn += 1
  used = [next.address, ...used.filter(other => other !== next.address)].slice(0, 8)
  store('used', used)
  keep(next)
  buckets = []
  drawSession()
  // Whoever comes for the first time takes up their invitations with this.
  await loadBuckets(bucket ?? open)
  return `You are signed in as ${next.address}.`
}

function keep (next) {
  session = next
  store('session', session)
  authorizeReference()
}

function signOut () {
  session = null
  turn += 1
  sessionStorage.removeItem('session')
  buckets = []
  authorizeReference()
  drawSession()
  drawBuckets()
  show(null)
  byId('address').focus()
  tell('You are signed out.')
}

function drawSession () {
  const isIn = session !== null
  byId('me').hidden = !isIn
  byId('me-address').textContent = session?.address ?? ''
  for (const id of ['create', 'reload']) byId(id).hidden = !isIn
  const others = used.filter(address => address !== session?.address)
  byId('used').hidden = others.length === 0
  byId('used').replaceChildren(...others.map(address => {
    const button = make('button', { type: 'button', className: 'chip' }, address)
    button.addEventListener('click', () => act(button, async () => {
      const told = await signIn(address)
      byId('sign-out').focus()
      return told
    }))
    return button
  }))
}

// Buckets.

/** Lists the buckets anew, and opens the one with that id if it is among them. */
async function loadBuckets (id = open) {
  const mine = ++turn
  const listed = await api('GET', '/api/bucket')
  if (mine !== turn) return
  buckets = listed
  drawBuckets()
  await show(buckets.some(bucket => bucket._id === id) ? id : null)
}

function drawBuckets () {
  const hint = byId('buckets-hint')
  hint.hidden = session !== null && buckets.length > 0
  hint.textContent = session === null
    ? 'Sign in to see your buckets, or to create one.'
    : 'You are in no bucket yet. Create one, or have yourself invited.'
  byId('list').hidden = buckets.length === 0
  byId('list').replaceChildren(...buckets.map(bucket => {
    const button = make('button', { type: 'button', className: 'entry' },
      make('span', { className: 'name' }, bucket.name), make('span', { className: 'tag' }, bucket.role))
    button.dataset.id = bucket._id
    button.addEventListener('click', () => act(button, async () => {
      await show(bucket._id)
      byId('bucket-name').focus()
    }))
    return make('li', {}, button)
  }))
}

/** Opens the bucket with that id, or none. */
async function show (id) {
  const isOther = id !== open
  open = id
  for (const button of byId('list').querySelectorAll('button')) {
    button.setAttribute('aria-expanded', String(button.dataset.id === id))
  }
  byId('bucket').hidden = id === null
  if (id === null) {
    if (BUCKET_HASH.test(location.hash)) history.replaceState(null, '', location.pathname)
    return
  }
  history.replaceState(null, '', `#/bucket/${id}`)
  const bucket = buckets.find(bucket => bucket._id === id)
  const isAdmin = bucket.role === 'owner' || bucket.role === 'admin'
  byId('bucket-name').textContent = bucket.name
  byId('bucket-facts').replaceChildren(
    'You are its ', make('b', {}, bucket.role), `. Plan ${bucket.credits.offer_type}. Id `, make('code', {}, id))
  byId('invitations-part').hidden = !isAdmin
  byId('link-part').hidden = !bucket.secret_id
  byId('link-command').textContent =
    `pm2 link ${bucket.secret_id} ${bucket.public_id} web-1 --info-node ${location.origin}`
  const roles = ROLES.slice(0, bucket.role === 'owner' ? 3 : ROLES.indexOf(bucket.role) + 1)
  byId('invitee-role').replaceChildren(...roles.map(role => make('option', { value: role }, role)))
  if (isOther) {
    for (const list of ['members', 'invitations', 'entries']) byId(list).replaceChildren()
    newestPart = ''
    delete byId('trail').dataset.older
  }

  const mine = ++turn
  const [members, invitations] = await Promise.all([
    api('GET', inBucket('users_authorized', id)),
    isAdmin ? api('GET', inBucket('invitations', id)).then(answer => answer.invitations) : []
  ])
  if (mine !== turn) return
  drawMembers(bucket, members)
  drawInvitations(invitations)
  await followTrail()
}

function drawMembers (bucket, members) {
  byId('members').replaceChildren(...members.map(member => {
    const isOwner = member.role === 'owner'
    const isMe = member.email === session.address
    const who = make('span', { className: 'who' }, member.email)
    const row = make('li', {}, who)
    if (bucket.role === 'owner' && !isOwner) {
      const setRole = action('Set role', `Set the role of ${member.email}`, async () => {
        const role = select.value
        await api('POST', inBucket('promote_user'), { email: member.email, role })
        member.role = role
        select.focus()
        setRole.hidden = true
        await followTrail()
        return `${member.email} is ${role} now.`
      })
      setRole.hidden = true
      const select = make('select', {}, ...ROLES.map(role => make('option', { value: role }, role)))
      select.value = member.role
      select.setAttribute('aria-label', `Role of ${member.email}`)
      // Not at once: with the keyboard, each role on the way to another is chosen for a moment.
      select.addEventListener('change', () => { setRole.hidden = select.value === member.role })
      row.append(select, setRole)
    } else {
      row.append(make('span', { className: 'tag' }, member.role))
    }
    if ((bucket.role === 'owner' || isMe) && !isOwner) {
      row.append(action(isMe ? 'Leave' : 'Remove', isMe ? 'Leave this bucket' : `Remove ${member.email}`, async () => {
        await api('POST', inBucket('remove_user'), { email: member.email })
        await loadBuckets()
        byId(isMe ? 'buckets' : 'members-title').focus()
        return isMe ? 'You have left.' : `${member.email} was removed.`
      }))
    }
    return row
  }))
}

function drawInvitations (invitations) {
  byId('no-invitations').hidden = invitations.length > 0
  byId('invitations').replaceChildren(...invitations.map(({ email, role, expires_at: expires }) => make('li', {},
    make('span', { className: 'who' }, email, make('small', {}, `until ${day(expires)}`)),
    make('span', { className: 'tag' }, role),
    action('Take back', `Take back the invitation of ${email}`, async () => {
      await api('DELETE', `${inBucket('invitation')}?email=${encodeURIComponent(email)}`)
      await show(open)
      byId('invitee').focus()
      return `The invitation of ${email} was taken back.`
    })
  )))
}

function action (text, label, work) {
  const button = make('button', { type: 'button', className: 'quiet' }, text)
  button.setAttribute('aria-label', label)
  button.addEventListener('click', () => act(button, work))
  return button
}

// The audit trail.

/** The newest part of the trail, as it was drawn last. */
let newestPart = ''

/** Draws what is new in the trail, unless it is folded up, or somebody reads on in older parts. */
async function followTrail () {
  if (open && session && byId('trail').open && !byId('trail').dataset.older) await loadTrail()
}

async function loadTrail (before) {
  const id = open
  const query = before ? `?before=${encodeURIComponent(before)}` : ''
  const part = await send('GET', `/_local/audit/${encodeURIComponent(id)}${query}`)
  // Older parts may have come meanwhile.
  if (id !== open || (!before && byId('trail').dataset.older)) return
  if (before) byId('trail').dataset.older = 'shown'
  const text = JSON.stringify(part)
  if (!before && text === newestPart) return
  if (!before) newestPart = text
  const { entries, more, people } = part
  const drawn = entries.map(entry => drawEntry(entry, people))
  if (before) byId('entries').append(...drawn)
  else byId('entries').replaceChildren(...drawn)
  byId('older').hidden = !more
  byId('older').dataset.before = entries.at(-1)?.id ?? ''
}

function drawEntry (entry, people) {
  const person = id => make('b', {}, people[id] ?? id)
  const target = entry.server ?? entry.target_email
  const named = target ?? (entry.target_id && entry.target_id !== entry.actor_id ? person(entry.target_id) : undefined)
  return make('li', {},
    time(entry.at),
    make('span', {},
      entry.actor_id ? person(entry.actor_id) : make('b', {}, entry.server ? 'An agent' : 'Stripe'),
      ` ${ACTIONS[entry.action] ?? entry.action}`,
      named === undefined ? '' : ' ',
      typeof named === 'string' ? make('b', {}, named) : named,
      entry.role ? `, as ${entry.role}` : '',
      entry.mailed_at ? make('span', { className: 'tag' }, 'mailed') : undefined))
}

// The outbox.

let newest = null

/** Shows what has happened since, here or elsewhere. */
async function follow () {
  try {
    // The reference does not ask before it calls.
    if (session) await renew()
    await loadMails()
    await followTrail()
  } catch (error) {
    // A stack that was stopped may be started again: the next time says.
    if (!(error instanceof Refusal)) throw error
  }
}

async function loadMails () {
  const mails = await send('GET', `/_local/mail.json?limit=${MAILS}`)
  const latest = mails[0]?.message_id ?? ''
  if (latest === newest) return
  const isNews = newest !== null && latest !== ''
  newest = latest
  drawMails(mails)
  if (isNews) byId('news').textContent = `New mail to ${mails[0].to.join(', ')}: ${mails[0].subject}`
}

function drawMails (mails) {
  byId('no-mails').hidden = mails.length > 0
  // What has the focus or is unfolded stays so.
  const kept = new Map([...byId('mails').children].map(item => [item.dataset.id, item]))
  byId('mails').replaceChildren(...mails.map(mail => kept.get(mail.message_id) ?? drawMail(mail)))
}

function drawMail (mail) {
  const item = make('li', {},
    make('h3', {}, mail.subject),
    make('p', { className: 'facts' }, 'To ', make('b', {}, mail.to.join(', ')), ' ', time(mail.received_at)),
    make('pre', {}, mail.text ?? 'This mail has an HTML part alone: see all mails.'))
  item.dataset.id = mail.message_id
  const [receiver] = mail.to
  if (receiver) {
    const bucket = BUCKET_LINK.exec(mail.text ?? '')?.[1]
    const button = make('button', { type: 'button' }, `Sign in as ${receiver}`)
    button.addEventListener('click', () => act(button, async () => {
      const told = await signIn(receiver, bucket)
      byId(open ? 'bucket-name' : 'buckets').focus()
      return told
    }))
    item.append(button)
  }
  return item
}

// Times.

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' })
const date = new Intl.DateTimeFormat(undefined, { dateStyle: 'long' })
const day = text => date.format(new Date(text))
const time = at => make('time', { dateTime: new Date(at).toISOString() }, moment.format(new Date(at)))

// The reference.

let reference = null
let isAuthorized = false

function drawReference () {
  if (!window.SwaggerUIBundle) {
    byId('swagger').replaceChildren(make('p', { className: 'hint' }, 'The reference cannot be drawn: its script is missing.'))
    return
  }
  const theme = matchMedia('(prefers-color-scheme: dark)')
  const followTheme = () => document.documentElement.classList.toggle('dark-mode', theme.matches)
  theme.addEventListener('change', followTheme)
  followTheme()
  reference = window.SwaggerUIBundle({
    url: new URL('openapi.json', location.href).href,
    dom_id: '#swagger',
    docExpansion: 'list',
    defaultModelsExpandDepth: -1,
    displayRequestDuration: true,
    deepLinking: false,
    persistAuthorization: false,
    // Nobody else is asked whether the description is valid.
    validatorUrl: null,
    onComplete: () => {
      // It is a part of this page's main content.
      byId('swagger').querySelector('main')?.setAttribute('role', 'presentation')
      authorizeReference()
    },
    responseInterceptor: response => {
      const changed = !response.ok ? false : /\/api\/bucket/.test(response.url) && response.req?.method !== 'GET'
      if (changed && session) act(null, () => loadBuckets())
      return response
    }
  })
}

/** Has the reference call as who is signed in, or as nobody. */
function authorizeReference () {
  if (!reference) return
  if (session) reference.preauthorizeApiKey('token', session.token)
  else if (isAuthorized) reference.authActions.logout(['token'])
  isAuthorized = session !== null
}

// The beginning.

byId('origin').textContent = location.origin
byId('sign-out').addEventListener('click', signOut)
byId('reload').addEventListener('click', event => act(event.currentTarget, async () => {
  await loadBuckets()
  return 'The buckets are up to date.'
}))
byId('trail').addEventListener('toggle', () => {
  if (!byId('trail').open || !open) return
  delete byId('trail').dataset.older
  newestPart = ''
  act(null, () => loadTrail())
})
byId('older').addEventListener('click', event => {
  const button = event.currentTarget
  act(button, () => loadTrail(button.dataset.before))
})
onSubmit('sign-in', async ({ address }, form) => {
  const told = await signIn(address.value)
  form.reset()
  return told
})
onSubmit('create', async ({ name }, form) => {
  const { bucket } = await api('POST', '/api/bucket/create_classic', { name: name.value })
  form.reset()
  await loadBuckets(bucket._id)
  byId('bucket-name').focus()
  return `The bucket ${bucket.name} was created.`
})
onSubmit('invite', async ({ invitee, role }, form) => {
  const email = invitee.value.trim()
  await api('POST', inBucket('add_user'), { email, role: role.value })
  form.reset()
  await show(open)
  invitee.focus()
  return `${email} was invited.`
})

/** Opens the bucket that the address of the page names, as the links in mails do. */
function followHash () {
  const id = BUCKET_HASH.exec(location.hash)?.[1]
  if (!id || id === open) return
  if (!session) {
    open = id
    tell('Sign in as a member of the bucket to open it.')
    byId('address').focus()
    return
  }
  act(null, async () => {
    await loadBuckets(id)
    if (open !== id) throw new Refusal(404, `${session.address} is in no bucket with this id.`)
  })
}

addEventListener('hashchange', followHash)
drawSession()
drawBuckets()
drawReference()
if (BUCKET_HASH.test(location.hash)) followHash()
else if (session) act(null, () => loadBuckets())
follow()
setInterval(() => document.visibilityState === 'visible' && follow(), FOLLOW_MS)
