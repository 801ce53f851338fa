'use strict'

// Draws docs/local-page.png: `npm run screenshot`. Needs Chromium, and the port 3000 unless `BUCKET_API_URL` names a
// stack that runs already, and has nothing in it.
// With a folder (`npm run screenshot -- /tmp/shots`): also the page in the dark and on a phone, in there.

const path = require('node:path')

const { create, invite, launch, signIn, visit } = require('./browser')
const { start } = require('./stack')

const PICTURE = path.resolve(__dirname, '../docs/local-page.png')

async function draw () {
  const { origin, stop } = await start(process.env.BUCKET_API_URL ? {} : { port: 3000 })
  const browser = await launch()
  try {
    const { page } = await visit(browser, `${origin}/_local/`, { height: 1190 })
    await signIn(page, 'bob@example.com')
    await signIn(page, 'alice@example.com')
    await create(page, 'Production')
    for (const [address, role] of [['bob@example.com', 'admin'], ['carol@example.com', 'developer']]) {
      await invite(page, address, role)
      await page.locator('#mails li', { hasText: address }).waitFor()
    }
    await page.getByText('Audit trail', { exact: true }).click()
    await page.locator('#entries .tag').nth(1).waitFor()
    await page.mouse.move(0, 0)
    await page.evaluate(() => {
      document.getElementById('status').textContent = ''
      document.activeElement.blur()
      scrollTo(0, 0)
    })
    await page.screenshot({ path: PICTURE })

    const [folder] = process.argv.slice(2)
    if (!folder) return
    const operation = page.locator('#swagger .opblock', { hasText: '/api/bucket/create_classic' })
    await operation.getByRole('button').first().click()
    await operation.getByRole('button', { name: 'Try it out' }).click()
    for (const [name, { width, colorScheme }] of Object.entries({
      wide: { width: 1280, colorScheme: 'light' },
      dark: { width: 1280, colorScheme: 'dark' },
      narrow: { width: 390, colorScheme: 'light' },
      'narrow-dark': { width: 390, colorScheme: 'dark' }
    })) {
      await page.setViewportSize({ width, height: 900 })
      await page.emulateMedia({ colorScheme })
      await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true })
    }
  } finally {
    await browser.close()
    await stop()
  }
}

draw().then(() => process.exit(), error => {
  console.error(error)
  process.exit(1)
})
