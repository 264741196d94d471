// Uses the console as people do, in a real browser: `node console.mjs SCENARIO URL`, once in each theme.
// TOOLS is the directory whose node_modules has playwright-core and axe-core, BROWSER the browser's program.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [scenario, url] = process.argv.slice(2);
const require = createRequire(`${process.env.TOOLS}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** How long anything may take. */
const PATIENCE = 20_000;

async function assertAccessible(page, when) {
  // Through the debugger, because the page's own policy takes no script but its own.
  await page.evaluate(axe);
  const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
  assert.ok(passes.length > 15, `axe has looked at little: ${passes.length}`);
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((it) => it.html).join(" ")}`);
  assert.deepEqual(told, [], when);
}

async function assertFits(page, when) {
  const { content, window } = await page.evaluate(() => ({
    content: document.documentElement.scrollWidth,
    window: globalThis.innerWidth,
  }));
  assert.ok(content <= window, `${when}: ${content} px in ${window}`);
}

async function until(what, check) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const found = await check();
    if (found) return found;
    assert.ok(Date.now() < deadline, `not within ${PATIENCE} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const summary = (page) => page.locator("#summary").textContent();

/** Sends what the form says, with the keyboard, and gives the summary of the answer. */
async function send(page) {
  const before = await summary(page);
  await page.getByRole("button", { name: "Send" }).press("Enter");
  return until("an answer", async () => {
    const now = await summary(page);
    return now !== before && !now.startsWith("Sent") && now;
  });
}

async function become(page, key) {
  await page.getByLabel("API key", { exact: true }).fill(key);
  await page.getByLabel("API key", { exact: true }).press("Tab");
}

/** The bar of a limit: what it says, and how much of it is filled. */
async function bar(page, operation) {
  const meter = page.getByRole("meter", { name: operation });
  await meter.waitFor();
  return {
    now: Number(await meter.getAttribute("aria-valuenow")),
    most: Number(await meter.getAttribute("aria-valuemax")),
    text: await meter.getAttribute("aria-valuetext"),
    filled: await meter.evaluate((it) => it.firstElementChild.clientWidth / it.clientWidth),
  };
}

async function keyboardReaches(page, name) {
  for (let presses = 0; presses < 40; presses += 1) {
    await page.keyboard.press("Tab");
    const reached = await page.evaluate(() => {
      const focused = document.activeElement;
      return focused.labels?.[0]?.textContent ?? focused.textContent;
    });
    if (reached.trim() === name) {
      const { outlineStyle } = await page.evaluate(() => getComputedStyle(document.activeElement));
      assert.notEqual(outlineStyle, "none", `${name} shows no focus`);
      return;
    }
  }
  assert.fail(`the keyboard does not reach ${name}`);
}

/** Uses up a limit, sees the bar full and the wait count down, and resets as an admin. */
async function usesUpALimit(page, theme) {
  assert.match(await page.title(), /limiter/);
  const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const [red] = ground.match(/\d+/g).map(Number);
  assert.equal(red > 127, theme === "light", `${theme}: ${ground}`);
  for (const name of ["API key", "Operation", "Parameters, a JSON object", "Send", "Refresh"]) {
    await keyboardReaches(page, name);
  }
  await until("health", async () => (await page.locator("#health").textContent()).startsWith("Healthy"));
  await assertAccessible(page, "at first");
  await assertFits(page, "at first");

  await become(page, "demo-alice");
  await page.getByLabel("Operation", { exact: true }).selectOption("companyResearch");
  await page.getByLabel("Parameters, a JSON object").fill(JSON.stringify({ company: theme }));
  assert.match(await send(page), /^200 in \d+ ms, cache miss, \d+ of 20 left$/);
  assert.match(await send(page), /^200 in \d+ ms, cache hit, \d+ of 20 left$/);
  await page.getByText("Headers and body, as they were sent").click();
  assert.match(await page.locator("#headers").textContent(), /x-ratelimit-limit: 20\n/);

  await page.getByLabel("Operation", { exact: true }).selectOption("coverLetter");
  await page.getByLabel("Parameters, a JSON object").fill("{}");
  for (const left of [2, 1, 0]) {
    assert.match(await send(page), new RegExp(`^200 in \\d+ ms, ${left} of 3 left$`));
  }
  const refused = await send(page);
  assert.match(refused, /^429 in \d+ ms, 0 of 3 left, coverLetter is limited to 3 per hour; try again in 60 minutes$/);
  const full = await until("a full bar", async () => {
    const it = await bar(page, "coverLetter");
    return it.text.includes("wait") && it;
  });
  assert.deepEqual([full.now, full.most], [3, 3]);
  assert.ok(full.filled > 0.99, `${full.filled} is filled`);
  assert.match(full.text, /^3 of 3 used, wait (1:00:00|59:\d\d)$/);
  const seconds = (text) => text.match(/wait (.*)$/)[1].split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
  await until("the wait counts down", async () => seconds((await bar(page, "coverLetter")).text) < seconds(full.text));
  assert.match((await bar(page, "model-tokens")).text, /^\d+ of 2000000 tokens used, all free in /);
  const other = await bar(page, "emailDraft");
  assert.deepEqual([other.now, other.filled, other.text], [0, 0, "0 of 20 used"]);
  await assertAccessible(page, "with a full bar");
  await assertFits(page, "with a full bar");
  if (theme === "light" && process.env.SCREENSHOT) {
    const narrow = page.viewportSize();
    await page.setViewportSize({ width: 760, height: 1000 });
    await page.getByText("Headers and body, as they were sent").click();
    await page.evaluate(() => globalThis.scrollTo(0, 0));
    await page.screenshot({ path: process.env.SCREENSHOT });
    await page.setViewportSize(narrow);
  }

  await become(page, "nobody");
  await until("a key that is not known", async () =>
    (await page.locator("#who").textContent()).includes("this API key is not known"));
  assert.equal(await page.getByRole("heading", { name: "Admin" }).isVisible(), false);

  await become(page, "demo-admin");
  await page.getByRole("heading", { name: "Admin" }).waitFor();
  await page.getByRole("button", { name: "Show who is denied most" }).press("Enter");
  await page.getByRole("row", { name: /coverLetter/ }).first().waitFor();
  await page.getByRole("button", { name: "Show usage" }).press("Enter");
  await assertAccessible(page, "as an admin");
  const reset = page.getByRole("button", { name: "Reset coverLetter of alice" });
  await reset.waitFor();
  await assertFits(page, "as an admin");
  await reset.press("Enter");
  await until("the reset", async () =>
    (await page.locator("#admin-said").textContent()) === "coverLetter of alice starts again.");
  assert.ok(await reset.isDisabled(), "nothing is left to reset");
  assert.match(await page.getByRole("row", { name: /^alice coverLetter/ }).textContent(), /0 of 3/);
  assert.equal(await page.evaluate(() => document.activeElement.id), "show-usage", "the focus stays");
  await become(page, "demo-alice");
  assert.equal(await page.getByRole("row", { name: /coverLetter/ }).count(), 0, "an admin's tables are gone");
  await until("an empty bar", async () => (await bar(page, "coverLetter")).text === "0 of 3 used");
}

/** Redis is away. */
async function isDegraded(page) {
  await until("the health says so", async () =>
    (await page.locator("#health").textContent()).startsWith("Degraded; limits in redis"));
  await page.getByLabel("Operation", { exact: true }).selectOption("coverLetter");
  await page.getByLabel("Parameters, a JSON object").fill("{}");
  assert.match(await send(page), /^200 in \d+ ms, degraded: allowed$/);
  await until("what was answered", async () =>
    /answered without Redis: .*allowed/.test(await page.locator("#health").textContent()));
  await assertAccessible(page, "degraded");
}

const scenarios = { usesUpALimit, isDegraded };
const browser = await chromium.launch({
  executablePath: process.env.BROWSER,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  for (const colorScheme of ["light", "dark"]) {
    const page = await browser.newPage({ colorScheme, viewport: { width: 360, height: 740 } });
    page.setDefaultTimeout(PATIENCE);
    const wrong = [];
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("console", (line) => {
      // A refused request is one that the page asked for on purpose.
      if (line.type() === "error" && !line.text().startsWith("Failed to load resource")) wrong.push(line.text());
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith("data:")) wrong.push(`asked ${request.url()}`);
    });
    await page.goto(`${url}/`);
    await scenarios[scenario](page, colorScheme);
    assert.deepEqual(wrong, []);
    await page.close();
    console.log(`${scenario} in ${colorScheme}: good`);
  }
} finally {
  await browser.close();
}
