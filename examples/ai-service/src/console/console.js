"use strict";

const element = (id) => document.getElementById(id);
const key = () => ({ authorization: `Bearer ${element("key").value.trim()}` });

/** How long after the last thing that somebody did limits are asked for by themselves. */
const ATTENTION_MS = 120_000;
const POLL_MS = 5_000;

let lastUse = 0;
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

async function showHealth() {
  const pill = element("health");
  pill.classList.remove("good", "bad");
  try {
    const { body } = await ask("health");
    const without = Object.entries(body.answered_without_redis).filter(([, count]) => count > 0);
    const told = [body.status === "ok" ? "Healthy" : "Degraded", `limits in ${body.backend}`];
    if (body.status !== "ok") told.push(body.message);
    if (without.length > 0) {
      const counts = without.map(([what, count]) => `${count} ${what}`).join(", ");
      told.push(`answered without Redis: ${counts}`);
    }
    pill.textContent = told.join("; ");
    pill.classList.add(body.status === "ok" ? "good" : "bad");
  } catch {
    pill.textContent = "The service does not answer";
    pill.classList.add("bad");
  }
}

async function showLimits() {
  let answer;
  try {
    answer = await ask("api/me");
  } catch {
    element("who").textContent = "The service does not answer.";
    return;
  }
  const { response, body } = answer;
  element("admin").hidden = !(response.ok && body.admin);
  if (!response.ok) {
    element("who").textContent = detail(answer);
    limits = [];
    element("limits").replaceChildren();
    return;
  }
  element("who").textContent = `Of ${body.user}, in tenant ${body.tenant}.`;
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
  const told = [`${limit.used} of ${limit.limit} used`];
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
    button.addEventListener("click", () => reset(line));
    return tableRow(line.user, line.operation, `${line.used} of ${line.limit}`, button);
  });

const showTop = () =>
  showTable("top", "api/admin/offenders", "offenders", (line) =>
    tableRow(line.key ?? line.audit_key, line.policy, String(line.days_ago), String(line.denied)));

async function reset({ user, operation }) {
  const path = `api/admin/usage/${encodeURIComponent(user)}/${encodeURIComponent(operation)}`;
  const said = element("admin-said");
  try {
    const answer = await ask(path, { method: "DELETE" });
    const done = `${operation} of ${user} starts again.`;
    const told = answer.response.ok ? done : detail(answer);
    await Promise.all([showUsage(), showLimits()]);
    said.textContent = told;
    element("show-usage").focus();
  } catch {
    said.textContent = "The service does not answer.";
  }
}

function tick() {
  limits.forEach(draw);
  const isOver = ({ at, retry_after_seconds: wait, reset_after_seconds: end, used }) => {
    const passed = (Date.now() - at) / 1000;
    return used > 0 && passed >= (wait ?? end);
  };
  const isWatched = !document.hidden && Date.now() - lastUse < ATTENTION_MS;
  const isOld = limits.some(({ at }) => Date.now() - at >= POLL_MS);
  if (!document.hidden && (limits.some(isOver) || (isWatched && isOld))) {
    limits = limits.map((limit) => ({ ...limit, at: Date.now() }));
    showLimits();
  }
}

element("try").addEventListener("submit", send);
element("refresh").addEventListener("click", () => {
  lastUse = Date.now();
  showLimits();
  showHealth();
});
element("key").addEventListener("change", showLimits);
element("show-usage").addEventListener("click", showUsage);
element("show-top").addEventListener("click", showTop);
setInterval(tick, 1000);
showLimits();
showHealth();
