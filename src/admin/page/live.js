"use strict";
// Text reaches the page through textContent only: names and models are what others wrote.
const PERIOD_MS = 1000, PATIENCE_MS = 5000, RATE_OVER_MS = 10000;
const at = id => document.getElementById(id);
const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
function make(name, text, kind) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}
const known = value => value !== null && value !== undefined;
const count = value => known(value) ? value.toLocaleString("en") : "–";
const percent = value => known(value) ? Math.round(value * 100) + " %" : "–";
function age(ms) {
  if (!known(ms)) return "–";
  if (ms < 1000) return ms + " ms";
  if (ms < 120000) return (ms / 1000).toFixed(ms < 10000 ? 1 : 0) + " s";
  return Math.round(ms / 60000) + " min";
}
const micros = us => us < 1000 ? us + " µs" : (us / 1000).toFixed(1) + " ms";
const bytes = n => n < 1048576 ? Math.round(n / 1024) + " KiB" : (n / 1048576).toFixed(1) + " MiB";

// Endpoints: a table for each pool; rows stay and only what changed is written.
const COLUMNS = [["name", "Endpoint"], ["role", "Role"], ["waiting", "Waiting", 1], ["running", "Running", 1], ["kv_usage", "KV in use", 1],
  ["in_flight_requests", "In flight", 1], ["in_flight_tokens", "Tokens", 1], ["age_ms", "Data age", 1], ["health", "Health"]];
const tables = new Map();
let only = "";

function table(name) {
  const section = make("section"), title = make("h3"), more = make("p", "", "soft"), scroll = make("div", undefined, "scroll"), grid = make("table");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Endpoints of " + (name || "the pool"));
  const head = grid.createTHead().insertRow(), body = grid.createTBody();
  const own = { section, title, more, body, rows: new Map(), sort: null, down: false };
  COLUMNS.forEach(([key, text, numeric]) => {
    const cell = make("th", undefined, numeric ? "n" : ""), button = make("button", text);
    cell.scope = "col";
    button.type = "button";
    button.addEventListener("click", () => {
      own.down = own.sort === key ? !own.down : Boolean(numeric);
      own.sort = key;
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", own.down ? "descending" : "ascending");
      if (last) showPools(last);
    });
    cell.append(button);
    head.append(cell);
  });
  scroll.append(grid);
  section.append(title, more, scroll);
  return own;
}

function row(own, endpoint) {
  let found = own.rows.get(endpoint.name);
  if (!found) {
    const line = make("tr"), cells = {};
    for (const [key, , numeric] of COLUMNS) {
      const cell = make(key === "name" ? "th" : "td", undefined, numeric ? "n" : "");
      if (key === "name") cell.scope = "row";
      cells[key] = cell;
      line.append(cell);
    }
    const meter = make("meter");
    meter.max = 1;
    meter.high = 0.9;
    meter.setAttribute("aria-hidden", "true");
    const share = make("span");
    cells.kv_usage.append(meter, share);
    found = { line, cells, meter, share };
    own.rows.set(endpoint.name, found);
  }
  const { cells } = found;
  say(cells.name, endpoint.name);
  cells.name.title = endpoint.name;
  say(cells.role, endpoint.role);
  for (const key of ["waiting", "running", "in_flight_requests", "in_flight_tokens"]) say(cells[key], count(endpoint[key]));
  found.meter.value = endpoint.kv_usage || 0;
  say(found.share, percent(endpoint.kv_usage));
  say(cells.age_ms, age(endpoint.age_ms));
  const kind = endpoint.health === "ok" ? "good" : endpoint.health.startsWith("suspect") ? "bad" : "warn";
  say(cells.health, endpoint.health);
  if (cells.health.className !== kind) cells.health.className = kind;
  return found;
}

function named(columns, values) {
  const endpoint = {};
  columns.forEach((column, i) => { endpoint[column] = values[i]; });
  endpoint.health = known(endpoint.suspect) ? "suspect: " + (endpoint.suspect || "unknown")
    : endpoint.reading === "fresh" ? "ok" : endpoint.reading === "never" ? "no data yet" : "data is stale";
  return endpoint;
}

function order(a, b) {
  if (typeof a === "string") return a.localeCompare(b, "en", { numeric: true });
  return (known(a) ? a : -1) - (known(b) ? b : -1);
}

function showPool(pool, columns) {
  const name = pool.name || "";
  let own = tables.get(name);
  if (!own) {
    own = table(name);
    tables.set(name, own);
    at("pools").append(own.section);
  }
  const endpoints = pool.endpoints.map(values => named(columns, values));
  const shown = endpoints.filter(e => !only || [e.name, e.role, e.health, e.reading].join(" ").toLowerCase().includes(only));
  if (own.sort) shown.sort((a, b) => (own.down ? -1 : 1) * order(a[own.sort], b[own.sort]));
  say(own.title, (name || "The pool") + ": " + count(endpoints.length) + (endpoints.length === 1 ? " endpoint" : " endpoints")
    + (shown.length === endpoints.length ? "" : ", " + count(shown.length) + " shown"));
  say(own.more, [pool.ready ? "ready" : "waiting for " + pool.waiting_for.join(", "), count(pool.suspects) + " suspect",
    count(pool.streams_open) + " streams open", "prefix index " + bytes(pool.prefix_index_bytes), "configuration " + pool.config_generation].join(" · "));
  own.more.className = pool.ready ? "soft" : "warn";
  const lines = shown.map(endpoint => row(own, endpoint).line);
  const names = new Set(endpoints.map(e => e.name));
  for (const gone of own.rows.keys()) if (!names.has(gone)) own.rows.delete(gone);
  const same = lines.length === own.body.rows.length && lines.every((line, i) => own.body.rows[i] === line);
  if (!same) own.body.replaceChildren(...lines);
}

function showPools(live) {
  for (const pool of live.pools) showPool(pool, live.columns);
  const names = new Set(live.pools.map(pool => pool.name || ""));
  for (const [name, own] of tables) if (!names.has(name)) { own.section.remove(); tables.delete(name); }
}

// Totals: counters since the start make rates over the last ten seconds.
const points = [];
let last = null;

function rate(key) {
  const [first, newest] = [points[0], points[points.length - 1]];
  const seconds = (newest.time - first.time) / 1000;
  return seconds > 0.5 ? ((newest[key] - first[key]) / seconds).toFixed(1) : "…";
}

function showTotals(live) {
  const now = performance.now();
  const previous = points[points.length - 1];
  // A picker that began anew counts from zero.
  if (previous && live.picks < previous.picks) points.length = 0;
  const refused = Object.values(live.refusals).reduce((sum, n) => sum + n, 0);
  points.push({ time: now, picks: live.picks, refused });
  while (points.length > 2 && now - points[0].time > RATE_OVER_MS) points.shift();
  const recent = live.recent;
  const share = part => part.of_tokens > 0 ? percent(Math.min(1, part.cached_tokens / part.of_tokens)) : "–";
  const facts = [["Picks a second", rate("picks")], ["Picks since the start", count(live.picks)],
    ["Hit rate, predicted", share(recent.predicted)], ["Hit rate, reported", share(recent.reported)],
    ["Refusals a second", rate("refused")], ["Refusals since the start", count(refused)]];
  const list = at("totals");
  facts.forEach(([name, value], i) => {
    let card = list.children[i];
    if (!card) {
      card = make("div");
      card.append(make("dt", name), make("dd"));
      list.append(card);
    }
    say(card.lastChild, value);
  });
  const by = Object.entries(live.refusals).sort((a, b) => b[1] - a[1]).map(([code, n]) => code + " " + count(n));
  say(at("refusals"), "Refusals by cause: " + (by.join(", ") || "none") + ". Hit rates: the last " + count(recent.decisions) + " decisions.");
  say(at("process"), "version " + live.version + ", up " + age(live.uptime_seconds * 1000));
}

// Decisions.
function showDecisions(live) {
  const lines = live.decisions.map(decision => {
    const line = make("tr"), head = make("th"), open = make("button", decision.request_id, "link");
    head.scope = "row";
    head.title = decision.request_id;
    open.type = "button";
    open.addEventListener("click", () => { location.hash = "decision=" + encodeURIComponent(decision.request_id); });
    head.append(open);
    const chosen = (decision.pool ? decision.pool + ": " : "") + (decision.chosen || "–");
    const status = known(decision.status) ? String(decision.status) : "under way";
    line.append(head, make("td", age(decision.age_ms), "n"), make("td", decision.target_model || "–"), make("td", chosen),
      make("td", decision.refused || status, decision.refused || decision.status >= 500 ? "bad" : ""), make("td", count(decision.prompt_tokens), "n"),
      make("td", count(decision.predicted_cached_tokens), "n"), make("td", count(decision.reported_cached_tokens), "n"), make("td", micros(decision.took_us), "n"));
    return line;
  });
  const body = at("decisions").tBodies[0];
  const index = [...body.querySelectorAll("button")].indexOf(document.activeElement);
  const focused = index < 0 ? null : body.rows[index].cells[0].title;
  body.replaceChildren(...lines);
  const again = known(focused) && lines.find(line => line.cells[0].title === focused);
  if (again) again.querySelector("button").focus({ preventScroll: true });
  at("none").hidden = lines.length > 0;
}

// One decision, opened.
function grid(heads, rows, label) {
  const scroll = make("div", undefined, "scroll"), result = make("table");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", label);
  const head = result.createTHead().insertRow();
  heads.forEach((text, i) => { const cell = make("th", text, i ? "n" : ""); cell.scope = "col"; head.append(cell); });
  const body = result.createTBody();
  for (const { cells, chosen } of rows) {
    const line = body.insertRow();
    if (chosen) line.className = "chosen";
    cells.forEach((text, i) => {
      const cell = make(i ? "td" : "th", text, i ? "n" : "");
      if (!i) cell.scope = "row";
      line.append(cell);
    });
  }
  scroll.append(result);
  return scroll;
}

function profile(shown, why) {
  const parts = [make("h3", "Profile " + shown.profile + (shown.primary ? "" : " (beside the one that counts)"))];
  const cuts = make("ul");
  for (const cut of shown.cuts)
    cuts.append(make("li", cut.filter + ": " + count(cut.left) + " left" + (cut.removed.length ? "; removed " + cut.removed.join(", ") : "")));
  if (shown.cuts.length) parts.push(cuts);
  const numbers = new Map(why.candidates.map(c => [c.endpoint, c]));
  const heads = ["Endpoint", "Total", ...shown.scorers.map(s => s.scorer + " ×" + s.weight), "Waiting", "Running", "KV", "In flight", "Cached", "Data age"];
  const rows = shown.ratings.map(rated => {
    const c = numbers.get(rated.endpoint) || {}, place = shown.chosen.indexOf(rated.endpoint);
    const name = (place === 0 ? "★ " : place > 0 ? place + 1 + ". " : "") + rated.endpoint;
    return { chosen: place === 0, cells: [name, rated.total.toFixed(3), ...rated.scores.map(s => s.toFixed(3)), count(c.waiting), count(c.running), percent(c.kv_usage),
      count(c.in_flight_requests) + " / " + count(c.in_flight_tokens) + " tok", count(c.cached_tokens), c.reading === "fresh" ? age(c.age_ms) : c.reading || "–"] };
  });
  parts.push(rows.length ? grid(heads, rows, "Scores of profile " + shown.profile) : make("p", "The filters left nobody.", "warn"));
  return parts;
}

function explain(why) {
  const after = why.after, ms = value => known(value) ? value.toFixed(1) + " ms" : "–";
  const lines = [why.refused ? "Refused with " + why.refused + ": " + (why.refusal || "") : "Chosen: " + why.chosen + (why.targets.length > 1 ? "; then " + why.targets.slice(1).join(", ") : ""),
    "Model " + (why.model || "–") + (why.target_model !== why.model ? ", asked for as " + why.target_model : "") + ", priority " + why.priority + ", about " + count(why.prompt_tokens)
      + " prompt tokens; decided in " + micros(why.took_us) + ", " + age(why.age_ms) + " ago, by configuration " + why.generation,
    (known(why.status) ? "Answered " + why.status : "Not answered yet") + (after.ending ? ", ended " + after.ending : "") + (after.served ? ", served by " + after.served : "")
      + "; first byte after " + ms(after.first_byte_ms) + ", whole after " + ms(after.duration_ms)
      + "; cached prompt tokens: " + count(why.predicted_cached_tokens) + " predicted, " + count(why.reported_cached_tokens) + " reported"];
  return [...lines.map(text => make("p", text)), ...why.profiles.flatMap(shown => profile(shown, why))];
}

async function openDecision() {
  const asked = location.hash.match(/^#decision=(.+)$/), dialog = at("why");
  if (!asked) return dialog.close();
  let id = asked[1];
  try { id = decodeURIComponent(id); } catch { /* as it stands */ }
  say(at("why-title"), id);
  at("why-body").replaceChildren(make("p", "Asking …"));
  if (!dialog.open) dialog.showModal();
  let parts;
  try {
    const answer = await fetch("/debug/decisions/" + encodeURIComponent(id), { signal: AbortSignal.timeout(PATIENCE_MS) });
    parts = answer.ok ? explain(await answer.json()) : [make("p", answer.status + ": " + await answer.text(), "bad")];
  } catch (error) {
    parts = [make("p", "The picker does not answer: " + error.message, "bad")];
  }
  if (location.hash === asked[0]) at("why-body").replaceChildren(...parts);
}

// One request a second, and none while nobody looks.
let timer = null, asking = false;

async function ask() {
  timer = null;
  if (asking || document.visibilityState !== "visible") return;
  asking = true;
  try {
    const answer = await fetch("/debug/live", { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(answer.status + " " + await answer.text());
    last = await answer.json();
    showTotals(last);
    showPools(last);
    showDecisions(last);
    const state = last.draining ? "draining" : last.ready ? "ready" : "waiting for " + last.waiting_for.join(", ");
    at("link").className = last.ready && !last.draining ? "good" : "warn";
    say(at("link"), state);
  } catch (error) {
    at("link").className = "bad";
    say(at("link"), "The picker does not answer, the numbers are old: " + error.message);
  }
  asking = false;
  if (timer === null && document.visibilityState === "visible") timer = setTimeout(ask, PERIOD_MS);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  timer = null;
  points.length = 0;
  if (document.visibilityState === "visible") ask();
});
at("only").addEventListener("input", event => { only = event.target.value.trim().toLowerCase(); if (last) showPools(last); });
at("why").addEventListener("close", () => { if (location.hash) location.hash = ""; });
addEventListener("hashchange", openDecision);
if (location.hash) openDecision();
ask();
