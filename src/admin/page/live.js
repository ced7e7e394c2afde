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
// A name that may be broken after its namespace; it is too long for a telephone.
function write(node, name) {
  if (node.textContent === name) return;
  const slash = name.indexOf("/") + 1;
  node.replaceChildren(name.slice(0, slash), ...(slash ? [make("wbr")] : []), name.slice(slash));
  node.title = name;
}
// Puts the rows in this order and moves only those that stand elsewhere: who is pressed or focused stays so.
function place(body, lines) {
  const kept = new Set(lines);
  for (const line of [...body.rows]) if (!kept.has(line)) line.remove();
  lines.forEach((line, i) => { if (body.rows[i] !== line) body.insertBefore(line, body.rows[i] || null); });
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
const COLUMNS = [["name", "Endpoint", 0, "namespace and name"], ["health", "Health", 0, "suspect: gets no request while another endpoint is left; click: the worst first"],
  ["role", "Role", 0, "what it does for a request, by its label"], ["waiting", "Waiting", 1, "requests that wait in the engine"], ["running", "Running", 1, "requests that run in the engine"],
  ["kv_usage", "KV in use", 1, "share of the engine's KV cache"], ["in_flight_requests", "In flight", 1, "requests from this replica that have not ended"],
  ["in_flight_tokens", "Tokens", 1, "estimated tokens of those"], ["age_ms", "Data age", 1, "since the engine's numbers were read"]];
const tables = new Map();
let only = "";

function table(name) {
  const section = make("section"), title = make("h3"), more = make("p", "", "soft"), none = make("p", "", "warn"), scroll = make("div", undefined, "scroll"), grid = make("table");
  const state = make("span"), suspects = make("button", "", "link"), rest = make("span");
  suspects.type = "button";
  suspects.title = "Show only these";
  suspects.addEventListener("click", () => { at("only").value = "suspect"; sift(); at("only").focus(); });
  more.append(state, suspects, rest);
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Endpoints of " + (name || "the pool"));
  const head = grid.createTHead().insertRow(), body = grid.createTBody();
  const own = { section, title, more, state, suspects, rest, none, scroll, body, rows: new Map(), sort: "name", down: false };
  COLUMNS.forEach(([key, text, numeric, title]) => {
    const cell = make("th", undefined, numeric ? "n" : ""), button = make("button", text);
    cell.scope = "col";
    cell.title = title;
    if (key === own.sort) cell.setAttribute("aria-sort", "ascending");
    button.type = "button";
    button.addEventListener("click", () => {
      own.down = own.sort === key ? !own.down : Boolean(numeric) || key === "health";
      own.sort = key;
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", own.down ? "descending" : "ascending");
      if (last) showPools(last);
    });
    cell.append(button);
    head.append(cell);
  });
  scroll.append(grid);
  section.append(title, more, none, scroll);
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
  write(cells.name, endpoint.name);
  say(cells.role, endpoint.role);
  for (const key of ["waiting", "running", "in_flight_requests", "in_flight_tokens"]) say(cells[key], count(endpoint[key]));
  found.meter.value = endpoint.kv_usage || 0;
  found.meter.hidden = !known(endpoint.kv_usage);
  say(found.share, percent(endpoint.kv_usage));
  say(cells.age_ms, age(endpoint.age_ms));
  const kind = ["good", "warn", "warn", "bad"][endpoint.trouble];
  say(cells.health, endpoint.health);
  if (cells.health.className !== kind) cells.health.className = kind;
  return found;
}

function named(columns, values) {
  const endpoint = {};
  columns.forEach((column, i) => { endpoint[column] = values[i]; });
  endpoint.trouble = known(endpoint.suspect) ? 3 : endpoint.reading === "never" ? 2 : endpoint.reading === "fresh" ? 0 : 1;
  endpoint.health = ["ok", "data is stale", "no data yet", "suspect: " + (endpoint.suspect || "unknown")][endpoint.trouble];
  return endpoint;
}

// Numbers in names count as numbers. A collator is made once: to compare without one takes ten times as long.
const collator = new Intl.Collator("en", { numeric: true });
function order(key, a, b) {
  if (key === "health") return a.trouble - b.trouble || collator.compare(a.health, b.health);
  if (typeof a[key] === "string") return collator.compare(a[key], b[key]);
  return (known(a[key]) ? a[key] : -1) - (known(b[key]) ? b[key] : -1);
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
  shown.sort((a, b) => (own.down ? -1 : 1) * order(own.sort, a, b) || collator.compare(a.name, b.name));
  say(own.title, (name || "The pool") + ": " + count(endpoints.length) + (endpoints.length === 1 ? " endpoint" : " endpoints")
    + (shown.length === endpoints.length ? "" : ", " + count(shown.length) + " shown"));
  say(own.state, (pool.ready ? "ready" : "waiting for " + pool.waiting_for.join(", ")) + " · ");
  say(own.suspects, count(pool.suspects) + " suspect");
  own.suspects.disabled = pool.suspects === 0;
  say(own.rest, " · " + [count(pool.streams_open) + " streams open", "prefix index " + bytes(pool.prefix_index_bytes), "configuration " + pool.config_generation].join(" · "));
  own.more.className = pool.ready ? "soft" : "warn";
  say(own.none, shown.length ? "" : endpoints.length ? "None of the " + count(endpoints.length) + " matches “" + only + "”."
    : "No endpoint is known: requests for this pool are refused. Look at the pool's selector, its pods or the endpoints file.");
  own.none.hidden = own.scroll.hidden = false;
  (shown.length ? own.none : own.scroll).hidden = true;
  const lines = shown.map(endpoint => row(own, endpoint).line);
  const names = new Set(endpoints.map(e => e.name));
  for (const gone of own.rows.keys()) if (!names.has(gone)) own.rows.delete(gone);
  place(own.body, lines);
}

function showPools(live) {
  const shown = live.pools.filter(pool => pool.endpoints && (!chosen || pool.name === chosen));
  for (const pool of shown) showPool(pool, live.columns);
  const left = new Set(shown.map(pool => pool.name || ""));
  for (const [name, own] of tables) if (!left.has(name)) { own.section.remove(); tables.delete(name); }
}

// Several pools: all of them, or the one that stands in the address.
let chosen = new URLSearchParams(location.search).get("pool") || "";

function choose(name) {
  chosen = name;
  history.replaceState(null, "", location.pathname + (name ? "?pool=" + encodeURIComponent(name) : "") + location.hash);
  points.length = 0;
  held = false;
  if (last) { show(last); showDecisions(last); }
  plan();
}

function showSwitch(live) {
  const list = at("switch"), wanted = live.pools.length > 1 ? ["", ...live.pools.map(pool => pool.name)] : [];
  if (chosen && !wanted.includes(chosen)) choose("");
  if (wanted.length !== list.children.length || wanted.some((name, i) => list.children[i].value !== name))
    list.replaceChildren(...wanted.map(name => {
      const button = make("button");
      button.type = "button";
      button.value = name;
      button.addEventListener("click", () => choose(name));
      return button;
    }));
  for (const button of list.children) {
    const pool = live.pools.find(pool => pool.name === button.value);
    const trouble = !pool ? "" : !pool.ready ? ", not ready" : pool.suspects ? ", " + count(pool.suspects) + " suspect" : "";
    say(button, pool ? pool.name + " (" + count(pool.size) + trouble + ")" : "All pools");
    button.className = trouble ? "warn" : "";
    button.setAttribute("aria-pressed", String(button.value === chosen));
  }
  list.hidden = wanted.length === 0;
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
  // Of another choice of pools than the one that is looked at.
  if ((live.pool || "") !== chosen) return;
  const previous = points[points.length - 1];
  // A picker that began anew counts from zero.
  if (previous && live.picks < previous.picks) points.length = 0;
  const refused = Object.values(live.refusals).reduce((sum, n) => sum + n, 0);
  points.push({ time: now, picks: live.picks, refused });
  while (points.length > 2 && now - points[0].time > RATE_OVER_MS) points.shift();
  const recent = live.recent;
  const share = part => part.of_tokens > 0 ? percent(Math.min(1, part.cached_tokens / part.of_tokens)) : "–";
  const facts = [["Picks a second", rate("picks")], ["Picks in all", count(live.picks)],
    ["Hit rate, predicted", share(recent.predicted)], ["Hit rate, reported", share(recent.reported)],
    ["Refusals a second", rate("refused")], ["Refusals in all", count(refused)]];
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
  const by = Object.entries(live.refusals).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]).map(([code, n]) => code + " " + count(n));
  say(at("refusals"), "Refusals by cause: " + (by.join(", ") || "none") + ". Hit rates: the last " + count(recent.decisions) + " decisions.");
  say(at("process"), "version " + live.version + ", up " + age(live.uptime_seconds * 1000));
}

// Decisions: rows stay, so that a click is not lost between two answers, and the list stands still while somebody points
// at it or holds it. An id may come twice.
let decided = new Map(), held = false;

function holds() {
  const still = held || at("decisions").tBodies[0].matches(":hover");
  at("hold").setAttribute("aria-pressed", String(held));
  say(at("held"), still ? "held" + (held ? "" : " while pointed at") : "");
  return still;
}

function decisionRow(id) {
  const line = make("tr"), head = make("th"), open = make("button", undefined, "link");
  head.scope = "row";
  write(open, id);
  open.type = "button";
  open.addEventListener("click", () => { location.hash = "decision=" + encodeURIComponent(id); });
  head.append(open);
  line.append(head);
  ["n", "", "", "", "n", "n", "n", "n"].forEach(kind => line.append(make("td", undefined, kind)));
  return line;
}

function showDecisions(live) {
  const before = decided, seen = new Map();
  decided = new Map();
  const lines = live.decisions.filter(decision => !chosen || decision.pool === chosen).map(decision => {
    const id = decision.request_id, times = (seen.get(id) || 0) + 1, key = times + " " + id;
    seen.set(id, times);
    const line = before.get(key) || decisionRow(id);
    decided.set(key, line);
    const picked = (decision.pool && !chosen ? decision.pool + ": " : "") + (decision.chosen || "–");
    const status = known(decision.status) ? String(decision.status) : "under way";
    [age(decision.age_ms), decision.target_model || "–", picked, decision.refused || status, count(decision.prompt_tokens), count(decision.predicted_cached_tokens),
      count(decision.reported_cached_tokens), micros(decision.took_us)].forEach((text, i) => say(line.cells[i + 1], text));
    line.cells[4].className = decision.refused || decision.status >= 500 ? "bad" : "";
    return line;
  });
  place(at("decisions").tBodies[0], lines);
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
      const cell = make(i ? "td" : "th", i ? text : undefined, i ? "n" : "");
      if (!i) { cell.scope = "row"; write(cell, text); }
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
    const name = (place === 0 ? "★\u00a0" : place > 0 ? place + 1 + ".\u00a0" : "") + rated.endpoint;
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
  for (const shadow of why.shadows || [])
    lines.push("Shadow profile " + shadow.profile + " would have chosen " + (shadow.same ? "the same" : shadow.chosen || "nobody")
      + "; cached prompt tokens there: " + count(shadow.cached_tokens) + ", where the request went: " + count(shadow.real_cached_tokens));
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
let timer = null, asking = false, asked = -PERIOD_MS, heard = null;
const looked = Date.now();

function plan() {
  clearTimeout(timer);
  timer = null;
  if (!asking && document.visibilityState === "visible") timer = setTimeout(ask, Math.max(0, asked + PERIOD_MS - performance.now()));
}

function show(live) {
  showSwitch(live);
  showTotals(live);
  showPools(live);
  if (!holds()) showDecisions(live);
}

function link(kind, text) {
  at("link").className = kind;
  say(at("link"), text);
  at("main").className = kind === "lost" ? "old" : "";
  at("since").hidden = kind !== "lost";
}

async function ask() {
  timer = null;
  asking = true;
  asked = performance.now();
  try {
    const answer = await fetch("/debug/live" + (chosen ? "?pool=" + encodeURIComponent(chosen) : ""), { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error("it says " + answer.status + ", " + (await answer.text()).slice(0, 300).trim());
    last = await answer.json();
    heard = Date.now();
    show(last);
    link(last.ready && !last.draining ? "good" : "warn", last.draining ? "draining" : last.ready ? "ready" : "waiting for " + last.waiting_for.join(", "));
  } catch (error) {
    const since = heard || looked;
    points.length = 0;
    link("lost", "No answer from the picker since " + new Date(since).toLocaleTimeString("en-GB") + (heard ? ", the numbers below are from then: " : ": ") + error.message);
    say(at("since"), age(Date.now() - since) + " ago");
  }
  asking = false;
  plan();
}

function sift() {
  only = at("only").value.trim().toLowerCase();
  if (last) showPools(last);
}

document.addEventListener("visibilitychange", () => { points.length = 0; plan(); });
at("only").addEventListener("input", sift);
at("hold").addEventListener("click", () => { held = !held; holds(); });
at("why").addEventListener("close", () => { if (location.hash) location.hash = ""; });
addEventListener("hashchange", openDecision);
if (location.hash) openDecision();
sift();
ask();
