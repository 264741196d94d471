"use strict";

const element = (id) => document.getElementById(id);
/** A header holds no other characters, and no key has any. */
const key = () => ({ authorization: `Bearer ${element("key").value.trim().replace(/[^\x21-\x7e]/g, "?")}` });

/** How long after the last thing that somebody did limits and health are asked for by themselves, and how often. */
const ATTENTION_MS = 120_000;
const POLL_MS = 15_000;

let lastUse = 0;
/** Which question about limits was the last, and when it was asked. */
let lastAsked = 0;
let askedAt = 0;
/** What each limit said last, with the moment at which it said so. */
let limits = [];

function node(name, attributes = {}, text = "") {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.textContent = text;
  return made;
}

function span(seconds) {
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return hours > 0
    ? `${hours}:${two(minutes)}:${two(seconds % 60)}`
    : `${minutes}:${two(seconds % 60)}`;
}

async function ask(path, options = {}) {
  const start = performance.now();
  const response = await fetch(path, { ...options, headers: { ...key(), ...options.headers } });
  const text = await response.text();
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // Shown as text.
  }
  return { response, text, body, millis: Math.round(performance.now() - start) };
}

/** What a refusal says to people. */
function detail(answer) {
  return answer.body?.detail ?? answer.text.slice(0, 200);
}

async function send(event) {
  event.preventDefault();
  lastUse = Date.now();
  const summary = element("summary");
  summary.textContent = "Sent; waiting for the answer.";
  try {
    const operation = element("operation").value;
    const body = element("parameters").value;
    const answer = await ask(`api/${operation}`, { method: "POST", body });
    const { response } = answer;
    const told = [`${response.status} in ${answer.millis} ms`];
    const cache = response.headers.get("x-cache");
    if (cache) told.push(`cache ${cache}`);
    const remaining = response.headers.get("x-ratelimit-remaining");
    if (remaining !== null) told.push(`${remaining} of ${response.headers.get("x-ratelimit-limit")} left`);
    const degraded = response.headers.get("x-ratelimit-degraded");
    if (degraded) told.push(`degraded: ${degraded}`);
    if (!response.ok) told.push(detail(answer));
    summary.textContent = told.join(", ");
    const lines = [...response.headers].map(([name, value]) => `${name}: ${value}`);
    element("headers").textContent = [`HTTP ${response.status}`, ...lines].join("\n");
    element("body").textContent = answer.body ? JSON.stringify(answer.body, null, 2) : answer.text;
    element("answer").hidden = false;
  } catch {
    summary.textContent = "The service does not answer.";
  }
  await Promise.all([showLimits(), showHealth()]);
}

/** Changes a text only if it is another one: what is said again is read aloud again. */
function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

async function showHealth() {
  const pill = element("health");
  let told = "The service does not answer";
  let isGood = false;
  try {
    const { body } = await ask("health");
    isGood = body.status === "ok";
    const parts = [isGood ? "Healthy" : "Degraded", `limits in ${body.backend}`];
    if (!isGood) parts.push(body.message);
    const without = Object.entries(body.answered_without_redis).filter(([, count]) => count > 0);
    if (without.length > 0) {
      const counts = without.map(([what, count]) => `${count} ${what}`).join(", ");
      parts.push(`answered without Redis: ${counts}`);
    }
    told = parts.join("; ");
  } catch {
    // It says so.
  }
  say(pill, told);
  pill.classList.toggle("good", isGood);
  pill.classList.toggle("bad", !isGood);
}

async function showLimits() {
  const asked = ++lastAsked;
  askedAt = Date.now();
  let answer;
  try {
    answer = await ask("api/me");
  } catch {
    say(element("who"), "The service does not answer; the bars show what was known last.");
    return;
  }
  // Another key may have been asked for meanwhile.
  if (asked !== lastAsked) return;
  const { response, body } = answer;
  if (!response.ok) {
    say(element("who"), detail(answer));
    // An outage passes; a key that is not known has no limits.
    if (response.status < 500 && response.status !== 429) {
      element("admin").hidden = true;
      limits = [];
      element("limits").replaceChildren();
    }
    return;
  }
  element("admin").hidden = !body.admin;
  say(element("who"), `Limits of user ${body.user}, tenant ${body.tenant}.`);
  const now = Date.now();
  limits = body.limits.map((limit) => ({ ...limit, at: now }));
  const list = element("limits");
  if (list.children.length !== limits.length) list.replaceChildren(...limits.map(row));
  limits.forEach(draw);
}

function row({ operation }) {
  const item = node("li", { "data-operation": operation });
  const name = node("span", { class: "name", id: `limit-${operation}` }, operation);
  const told = node("span", { class: "told" });
  const meter = node("div", {
    class: "meter",
    role: "meter",
    "aria-labelledby": `limit-${operation}`,
    "aria-valuemin": "0",
  });
  meter.append(node("span"));
  item.append(name, " ", told, meter);
  return item;
}

/** Draws a limit as it is at this moment. */
function draw(limit) {
  const item = element("limits").querySelector(`[data-operation="${limit.operation}"]`);
  const passed = Math.floor((Date.now() - limit.at) / 1000);
  const left = (seconds) => Math.max(0, seconds - passed);
  const counted = limit.unit === "requests" ? "" : ` ${limit.unit}`;
  const told = [`${limit.used} of ${limit.limit}${counted} used`];
  const isFull = limit.retry_after_seconds !== null;
  if (isFull) told.push(`wait ${span(left(limit.retry_after_seconds))}`);
  else if (limit.used > 0) told.push(`all free in ${span(left(limit.reset_after_seconds))}`);
  item.querySelector(".told").textContent = told.join(", ");
  const meter = item.querySelector(".meter");
  meter.setAttribute("aria-valuemax", limit.limit);
  meter.setAttribute("aria-valuenow", Math.min(limit.used, limit.limit));
  meter.setAttribute("aria-valuetext", told.join(", "));
  meter.classList.toggle("is-full", isFull);
  meter.firstElementChild.style.setProperty("--used", Math.min(1, limit.used / limit.limit));
}

async function showTable(id, path, member, cells) {
  lastUse = Date.now();
  const said = element("admin-said");
  try {
    const answer = await ask(path);
    if (!answer.response.ok) {
      said.textContent = detail(answer);
      return;
    }
    const rows = answer.body[member];
    const table = element(id);
    table.querySelector("tbody").replaceChildren(...rows.map(cells));
    table.hidden = false;
    said.textContent = answer.body.error ?? (rows.length === 0 ? "Nobody." : "");
  } catch {
    said.textContent = "The service does not answer.";
  }
}

function tableRow(...cells) {
  const made = node("tr");
  for (const cell of cells) {
    const data = node("td");
    data.append(cell);
    made.append(data);
  }
  return made;
}

const showUsage = () =>
  showTable("usage", "api/admin/usage", "usage", (line) => {
    const label = `Reset ${line.operation} of ${line.user}`;
    const button = node("button", { type: "button", "aria-label": label }, "Reset");
    button.disabled = line.used === 0;
    const row = tableRow(line.user, line.operation, `${line.used} of ${line.limit}`, button);
    button.addEventListener("click", () => reset(line, row));
    return row;
  });

const showTop = () =>
  showTable("top", "api/admin/offenders", "offenders", (line) =>
    tableRow(line.key ?? line.audit_key, line.policy, String(line.days_ago), String(line.denied)));

async function reset({ user, operation }, row) {
  const path = `api/admin/usage/${encodeURIComponent(user)}/${encodeURIComponent(operation)}`;
  const said = element("admin-said");
  try {
    const answer = await ask(path, { method: "DELETE" });
    if (answer.response.ok) {
      row.cells[2].textContent = row.cells[2].textContent.replace(/^\d+/, "0");
      // The button is disabled with the focus on it, which would be lost.
      element("show-usage").focus();
      row.querySelector("button").disabled = true;
    }
    said.textContent = answer.response.ok ? `${operation} of ${user} starts again.` : detail(answer);
    await showLimits();
  } catch {
    said.textContent = "The service does not answer.";
  }
}

/** Another key may be another user's, whom the tables of an admin are none of the business of. */
function changeKey() {
  for (const id of ["usage", "top"]) {
    element(id).hidden = true;
    element(id).querySelector("tbody").replaceChildren();
  }
  element("admin-said").textContent = "";
  showLimits();
}

function tick() {
  limits.forEach(draw);
  const now = Date.now();
  const isOver = ({ at, retry_after_seconds: wait, reset_after_seconds: end, used }) =>
    used > 0 && (now - at) / 1000 >= (wait ?? end);
  const isOld = now - askedAt >= POLL_MS;
  const isWatched = now - lastUse < ATTENTION_MS;
  // One that is over is asked for once a second at most, while somebody may look.
  if (document.hidden || !isWatched || !(isOld || (limits.some(isOver) && now - askedAt >= 1000))) return;
  showLimits();
  if (isOld) showHealth();
}

element("try").addEventListener("submit", send);
element("refresh").addEventListener("click", () => {
  lastUse = Date.now();
  showLimits();
  showHealth();
});
element("key").addEventListener("change", changeKey);
element("show-usage").addEventListener("click", showUsage);
element("show-top").addEventListener("click", showTop);
setInterval(tick, 1000);
showLimits();
showHealth();
