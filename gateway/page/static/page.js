// The live page. Filters live in the address bar; what the server last said is `now`.
import { bytes, clock, count, html, lines, readable, show, span, stacked } from "./charts.js";

const $ = (id) => document.getElementById(id);
const LAYERS = [
  { key: "memory", class: "memory", name: "memory" },
  { key: "redis", class: "redis", name: "Redis" },
  { key: "joined", class: "joined", name: "joined" },
  { key: "loads", class: "loads", name: "loads" },
];
const LATENCIES = [
  { key: "p99", name: "p99", colour: "var(--loads)", dash: "2 3", thick: 1.6, swatch: "loads dot" },
  { key: "p95", name: "p95", colour: "var(--redis)", dash: "6 3", thick: 1.8, swatch: "redis dash" },
  { key: "p50", name: "p50", colour: "var(--memory)", dash: "", thick: 2.4, swatch: "memory" },
];
const DEFAULTS = { window: "1h", sort: "-cost_ms", view: "", live: "", letter: "", kind: "tag" };
let now = null, me = { admin: false }, can = [], letters = [], audit = [], skew = 0, held = false;
const happened = [];

// -- the address bar ---

const query = new URLSearchParams(location.search);
const get = (name) => query.get(name) ?? DEFAULTS[name] ?? "";
function set(name, value) {
  if (value === (DEFAULTS[name] ?? "")) query.delete(name); else query.set(name, value);
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
}

// -- talking to the server ---

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(`page/api/${path}`, { cache: "no-store", ...options });
  const said = await response.json();
  if (!response.ok) throw Object.assign(new Error(said.error), { status: response.status });
  return said;
}

let toasting;
function toast(text, bad) {
  $("toast").textContent = text;
  $("toast").className = bad ? "bad" : "";
  clearTimeout(toasting);
  toasting = setTimeout(() => { $("toast").textContent = ""; }, 5000);
}

async function act(verb, body) {
  try {
    toast((await ask(verb, body)).done);
  } catch (failed) {
    toast(failed.message, true);
  }
  await Promise.all([refresh(), rarely()]);
}

function confirmed(title, text, yes) {
  const dialog = $("ask"), [no, button] = dialog.querySelectorAll("button");
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector("p").textContent = text;
  button.textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  no.focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

async function refresh() {
  try {
    const said = await ask(`now?window=${get("window")}`);
    const away = said.now.servers.some((server) => !server.up);
    now = away && now ? { ...now, verdict: said.now.verdict, servers: said.now.servers } : said.now; // the last figures stay
    ({ me, can } = said);
    skew = said.now.at_ms - Date.now();
    $("pulse").className = away ? "pulse off" : "pulse on";
    $("pulse").textContent = away ? "Redis away" : "live";
  } catch (failed) {
    $("pulse").className = "pulse off";
    $("pulse").textContent = failed.status ? "no data" : "page server away";
    const says = failed.status === 401 ? "Sign in to see this page." : failed.status ? failed.message : "The server of this page does not answer.";
    const hint = failed.status === 401 ? html`<li><a href="#state">On the server: <code>python -m gateway.page ${location.origin}</code> prints a link</a></li>` : "";
    $("state").className = "state bad";
    show($("state"), html`<span class="sign" aria-hidden="true"></span><div><h1>${says}</h1><ul>${hint}</ul></div>`);
    return;
  }
  draw();
}

async function rarely() {
  try {
    [letters, audit] = await Promise.all([ask("letters"), ask("audit")]);
  } catch { return; }
  drawLetters();
  drawAudit();
}

// -- the state, the tiles ---

function draw() {
  drawState(); drawLatency(); drawRatio(); drawRedis(); drawReads(); drawViews(); drawSchedules(); drawPrimitives(); drawProcesses();
  $("me").textContent = me.admin ? `${me.name} · admin` : "read only";
  $("me").className = me.admin ? "me admin" : "me";
  $("me").title = me.admin ? "You may act. Everything you do is written to the audit log." : "To act, sign in: python -m gateway.page prints a link";
  for (const button of document.querySelectorAll("[data-set]")) button.ariaPressed = button.dataset.set === `window=${get("window")}`;
}

function drawState() {
  const { level, says, reasons } = now.verdict;
  $("state").className = `state ${level}`;
  document.title = level === "ok" ? "cachebus" : `${level === "bad" ? "✕" : "▲"} cachebus`;
  const chips = reasons.length > 1 || level === "ok" ? reasons.slice(level === "ok" ? 0 : 1) : [];
  show($("state"), html`<span class="sign" role="img" aria-label="${{ ok: "good", warn: "look today", bad: "look now" }[level]}"></span><div><h1>${says}</h1><ul>${chips.map((reason) => html`<li><a href="#${reason.panel}">${reason.level === "bad" ? "✕" : "▲"} ${reason.text}</a></li>`)}</ul></div>`);
}

const nothing = (text) => html`<p class="none">${text}</p>`;
const head = (id, name, aside) => html`<div class="head"><h2 id="h-${id}">${name}</h2><span class="soft">${aside}</span></div>`;
const wide = (id) => Math.max(240, $(id).clientWidth - 34);

function figure(ms) {
  const [number, unit] = span(ms).replace("> ", ">").split(" ");
  return html`${number}<small>${unit ?? ""}</small>`;
}

function drawLatency() {
  const [p50, p95, p99] = now.latency;
  const legend = (step) => LATENCIES.toReversed().map((line) => html`<span class="c-${line.swatch.split(" ")[0]}"><i class="swatch thin ${line.swatch.split(" ")[1] ?? ""}"></i>${line.name}${step ? html` <b>${span(step[line.key])}</b>` : ""}</span>`);
  const chart = now.minutes.length ? lines(wide("latency"), 118, now.minutes, LATENCIES, `Latency from event to fresh values, last hour: p50 ${span(p50)}, p95 ${span(p95)}, p99 ${span(p99)}`) : "";
  const at = $("latency").cursor ?? null;
  show($("latency"), html`${head("latency", "Event → fresh", `${count(now.events)} events in 10 min`)}
<div class="big"><div><b>${figure(p50)}</b><span>p50</span></div><div><b class="second">${figure(p95)}</b><span>p95</span></div><div><b class="second">${figure(p99)}</b><span>p99</span></div></div>
${chart}<div class="legend">${at === null ? "" : html`<span>${clock(now.minutes[at].at * 1000)}</span>`}${legend(at === null ? null : now.minutes[at])}</div>`);
}

const answered = (layers) => (layers.memory ?? 0) + (layers.redis ?? 0) + (layers.joined ?? 0) + (layers.loads ?? 0);
const share = (part, whole) => (whole ? (100 * part) / whole : 0);
function percent(layers) {
  const whole = answered(layers), found = share(whole - (layers.loads ?? 0), whole);
  return whole ? (found > 99.9 && found < 100 ? ">99.9" : found.toFixed(found >= 99.95 ? 0 : 1)) : "–";
}

function drawRatio() {
  const rows = ["now", "1h", "24h"].map((when) => {
    const layers = now.layers[when], whole = answered(layers);
    const title = LAYERS.map((layer) => `${layer.name} ${share(layers[layer.key] ?? 0, whole).toFixed(1)} %`).join(", ");
    return html`<span class="soft">${{ now: "now", "1h": "1 h", "24h": "24 h" }[when]}</span><span class="bar" role="img" aria-label="${title}" title="${title}">${LAYERS.map((layer) => html`<i class="c-${layer.class}" data-w="${share(layers[layer.key] ?? 0, whole).toFixed(2)}"></i>`)}</span><b>${percent(layers)} %</b>`;
  });
  const current = answered(now.layers.now) ? now.layers.now : now.layers["1h"], whole = answered(current);
  show($("ratio"), html`${head("ratio", "Hit ratio", `${count(answered(now.layers["24h"]))} reads in 24 h`)}
<div class="big"><div><b>${percent(current)}<small>%</small></b><span>answered without a load</span></div></div>
<div class="bars">${rows}</div><div class="legend">${LAYERS.map((layer) => html`<span class="c-${layer.class}"><i class="swatch"></i>${layer.name} <b>${whole ? `${share(current[layer.key], whole).toFixed(share(current[layer.key], whole) < 10 ? 1 : 0)} %` : "–"}</b></span>`)}</div>`);
}

function meter(name, used, most, shown) {
  const part = most ? share(used, most) : 0, level = part > 95 ? "bad" : part > 80 ? "warn" : "";
  return html`<div class="meter"><span>${name}${level && ` ▲ ${part.toFixed(0)} %`}</span><span class="soft">${shown}</span><span class="track ${level}" role="meter" aria-label="${name}" aria-valuemin="0" aria-valuemax="100" aria-valuenow="${part.toFixed(0)}"><i data-w="${Math.max(part, used ? 0.6 : 0).toFixed(1)}"></i></span></div>`;
}

function drawRedis() {
  show($("redis"), html`${now.servers.map((server) => html`${head("redis", server.name, server.version)}
${server.up ? html`<div class="big"><div><b>${figure(server.round_trip_ms)}</b><span>round trip</span></div><div><b class="second">${count(server.commands_a_second)}</b><span>commands / s</span></div></div>
<div class="meters">${meter("memory", server.memory, server.memory_limit, server.memory_limit ? `${bytes(server.memory)} of ${bytes(server.memory_limit)}` : `${bytes(server.memory)}, no limit set`)}${meter("connections", server.clients, server.most_clients, `${count(server.clients)} of ${count(server.most_clients)}`)}</div>
<div class="facts"><span>policy <b>${server.policy || "not told"}</b></span><span>evicted <b>${count(server.evicted)}</b></span><span>breaker <b>closed</b></span></div>` : html`<p class="none"><span class="chip bad">✕ away</span> The breaker is open: callers go on at once without it. It is tried again each second.</p>`}`)}`);
}

// -- reads over time ---

const steps = () => (get("window") === "24h" ? now.hours : get("window") === "10m" ? now.minutes.slice(-10) : now.minutes);

function drawReads() {
  if (!now.minutes.length) return show($("reads"), html`${head("reads", "Reads", "")}${nothing("No figures while Redis is away.")}`);
  const all = steps(), at = $("reads").cursor ?? null, step = at === null ? null : all[at];
  const legend = LAYERS.map((layer) => html`<span class="c-${layer.class}"><i class="swatch"></i>${layer.name}${step ? html` <b>${count(step[layer.key])}</b>` : ""}</span>`);
  show($("reads"), html`<div class="head"><h2 id="h-reads">Reads, by what answered them</h2><div class="legend">${step ? html`<span>${clock(step.at * 1000)}</span>` : ""}${legend}</div><span class="soft">a ${get("window") === "24h" ? "bar is an hour" : "bar is a minute"}</span></div>
${stacked(wide("reads"), 150, all, LAYERS, "Reads over time by layer")}`);
}

// -- views ---

const hits = (row) => (row.requests ? 1 - row.loads / row.requests : -1);
const COLUMNS = [
  ["name", "View", (row) => row.name, (row) => html`<td class="name mono">${row.name}${row.errors ? html` <span class="chip bad">✕ ${count(row.errors)} failed</span>` : ""}${row.stale ? html` <span class="chip" title="served past their TTL, within a window the view declares">${count(row.stale)} past TTL</span>` : ""}</td>`],
  ["requests", "Requests", (row) => row.requests, (row) => html`<td class="num" data-label="Requests">${count(row.requests)}</td>`],
  ["hit", "Hit", hits, (row) => html`<td class="num nowrap" data-label="Hit">${row.requests ? `${(hits(row) * 100).toFixed(1)} %` : "–"}</td>`],
  ["layers", "By layer", (row) => row.memory / (row.requests || 1), (row) => html`<td class="full"><span class="bar" role="img" aria-label="memory ${row.memory}, Redis ${row.redis}, loads ${row.loads}" title="memory ${count(row.memory)}, Redis ${count(row.redis)}, loads ${count(row.loads)}">${["memory", "redis", "loads"].map((layer) => html`<i class="c-${layer}" data-w="${share(row[layer], row.requests).toFixed(2)}"></i>`)}</span></td>`],
  ["load_ms", "Load", (row) => row.load_ms ?? -1, (row) => html`<td class="num nowrap" data-label="Load">${span(row.load_ms)}</td>`],
  ["raw_bytes", "Raw → stored", (row) => row.raw_bytes ?? -1, (row) => html`<td class="num nowrap" data-label="Raw → stored">${row.raw_bytes === null ? "–" : html`${bytes(row.raw_bytes)} <span class="soft">→</span> ${bytes(row.stored_bytes)}`}</td>`],
  ["ttl_ms", "TTL", (row) => row.ttl_ms ?? -1, (row) => html`<td class="num nowrap" data-label="TTL">${span(row.ttl_ms)}</td>`],
  ["invalidations", "Inval. / min", (row) => row.invalidations, (row) => html`<td class="num" data-label="Inval. / min">${row.invalidations ? row.invalidations.toFixed(row.invalidations < 10 ? 1 : 0) : "0"}</td>`],
  ["cost_ms", "Cost", (row) => row.cost_ms, (row, most) => html`<td class="num nowrap" data-label="Cost" title="misses × load time: what loads took altogether">${row.cost_ms ? span(row.cost_ms) : "0"}<i class="cost" data-px="${(60 * row.cost_ms / (most || 1)).toFixed(0)}"></i></td>`],
];

function drawViews() {
  const wanted = get("view").toLowerCase(), down = get("sort").startsWith("-"), by = get("sort").replace("-", "");
  const [, , value] = COLUMNS.find(([name]) => name === by) ?? COLUMNS.at(-1);
  const rows = now.views.filter((row) => row.name.toLowerCase().includes(wanted))
    .sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (down ? -1 : 1));
  const most = Math.max(0, ...now.views.map((row) => row.cost_ms));
  const heads = COLUMNS.map(([name, title], at) => html`<th scope="col" class="${at && name !== "layers" ? "num" : ""}" ${name === by ? html`aria-sort="${down ? "descending" : "ascending"}"` : ""}><button data-sort="${name}">${title}</button></th>`);
  show($("views-table"), now.views.length ? html`<div class="scroll" tabindex="-1"><table class="fold"><thead><tr>${heads}</tr></thead><tbody>${rows.map((row) => html`<tr data-id="${row.name}">${COLUMNS.map((column) => column[3](row, most))}</tr>`)}</tbody></table></div>${rows.length ? "" : nothing(`No view is called like “${get("view")}”.`)}` : nothing("No process has read a view yet. Processes say what they counted every ten seconds."));
  for (const bar of $("views-table").querySelectorAll("[data-px]")) bar.style.width = `${bar.dataset.px}px`;
}

// -- what happens ---

const KINDS = { k: "key", t: "tag", p: "prefix" };
const scope = (text) => (text === "*" ? html`<span class="chip gone" data-kind="all">everything</span>` : html`<span class="chip gone" data-kind="${KINDS[text[0]] ?? ""}">${text.slice(2)}${text[0] === "p" ? "*" : ""}</span>`);
const more = (number) => (number ? html`<span class="soft">+${count(number)} more</span>` : "");

function happening(one) {
  const events = one.events.length ? one.events.map((event) => html`<span class="chip event" title="${event.payload}">${event.channel}${event.key ? ` · ${event.key}` : ""}</span>`) : one.clock ? html`<span class="soft">invalidated directly</span>` : "";
  const gone = one.scopes.length ? html`<span class="arrow">→</span>${one.scopes.map(scope)}${more(one.more_scopes)}` : "";
  const told = one.told.length ? html`<span class="arrow">→</span>${one.told.map((each) => html`<span class="chip told" title="${each.type}">${each.topic}</span>`)}${more(one.more_told)}${one.sockets === undefined ? "" : html`<span class="soft">${count(one.sockets)} socket${one.sockets === 1 ? "" : "s"}</span>`}` : "";
  const lag = one.latency_ms === null ? "" : html`<span class="lag ${one.latency_ms > 1000 ? "late" : ""}" title="from publication until nobody reads older values">${one.latency_ms > 1000 ? "▲ " : ""}${span(one.latency_ms)}</span>`;
  return html`<time>${clock(one.at_ms, true)}</time><div class="flow">${events}${more(one.more_events)}${gone}${told}</div><span>${lag}</span>`;
}

const speaksOf = (one, text) => !text || JSON.stringify([one.events, one.scopes, one.told]).toLowerCase().includes(text.toLowerCase());

function drawTail() {
  const rows = happened.filter((one) => speaksOf(one, get("live"))).slice(-100).reverse();
  show($("tail"), rows.length ? rows.map((one) => html`<li data-id="${one.n}">${happening(one)}</li>`).join("") : nothing(happened.length ? "Nothing of that kind happened lately." : "Waiting for the first event or invalidation."));
}

let arrived = 0;
function watch() {
  const source = new EventSource("page/api/tail");
  let waiting = false;
  source.onopen = () => { happened.length = 0; };
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(watch, 3000); };
  source.addEventListener("gap", () => toast("Too much happened to show all of it."));
  source.onmessage = (message) => {
    happened.push({ ...JSON.parse(message.data), n: ++arrived });
    if (happened.length > 400) happened.splice(0, 100);
    if (held || waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const newest = Number($("tail").firstElementChild?.dataset.id ?? 0);
      drawTail();
      if (newest) for (const row of $("tail").children) if (Number(row.dataset.id) > newest) row.classList.add("new");
    });
  };
  drawTail();
}

// -- dead letters ---

const ago = (ms) => `${span(Math.max(0, Date.now() + skew - ms))} ago`;

function drawLetters() {
  const total = now?.backlog?.dead_letters ?? letters.length;
  $("letters-count").textContent = total || "";
  const wanted = get("letter").toLowerCase();
  const shown = letters.filter((one) => [one.channel, one.handler, one.reason, one.kind, one.key].join(" ").toLowerCase().includes(wanted));
  const row = (one) => html`<details data-id="${one.letter_id}"><summary><span><span class="chip ${one.kind === "gap" ? "warn" : "bad"}">${one.kind}</span> <b class="mono">${one.channel || "–"}</b></span><span class="soft nowrap">${ago(one.at_ms)}</span><span class="why">${one.reason}</span></summary>
<dl><dt>handler</dt><dd class="mono">${one.handler || "–"}</dd><dt>attempts</dt><dd>${one.attempts}</dd><dt>event</dt><dd class="mono">${one.id || "–"}${one.key ? `, key ${one.key}` : ""}</dd></dl>
<pre tabindex="0" aria-label="Payload">${one.payload}</pre>${one.detail ? html`<pre tabindex="0" aria-label="Traceback">${one.detail}</pre>` : ""}
<div class="acts">${me.admin ? html`<button data-act="retry" data-ids="${one.letter_id}" ${one.replayable ? "" : html`disabled title="there is no handler to give it to"`}>Retry</button><button data-act="discard" data-ids="${one.letter_id}">Discard</button>` : html`<span class="soft">sign in as an admin to retry or discard</span>`}</div></details>`;
  const ids = shown.filter((one) => one.replayable).map((one) => one.letter_id).join(" ");
  const all = me.admin && shown.length > 1 ? html`<div class="acts"><button data-act="retry" data-ids="${ids}">Retry these ${shown.length}</button><button data-act="discard" data-ids="${shown.map((one) => one.letter_id).join(" ")}">Discard these</button></div>` : "";
  show($("letters-list"), shown.length ? html`${all}${shown.map(row)}${total > letters.length ? html`<p class="none">${count(total - letters.length)} older ones: <code>python -m worker deadletter list</code></p>` : ""}` : nothing(letters.length ? "No dead letter is like that." : "None: every event was handled."));
}

// -- schedules, primitives, processes ---

function jobState(job) {
  if (job.paused) return html`<span class="chip warn">❚❚ paused</span>`;
  if (["claimed", "running"].includes(job.state)) return html`<span class="chip ok">▶ runs</span> <span class="soft">${job.progress}</span>`;
  if (job.outcome === "failed") return html`<span class="chip bad" title="${job.error}">✕ failed</span> <span class="soft">${job.error.trim().split("\n").at(-1)}</span>`;
  return job.outcome ? html`<span class="chip ok">✓ ${job.outcome}</span>` : html`<span class="chip">not yet</span>`;
}

function drawSchedules() {
  if (!now.jobs.length) return show($("schedules"), html`${head("schedules", "Schedules", "")}${nothing(can.includes("jobs/run") ? "No job is declared." : "Jobs are shown by the page of a worker: start one with PORT set.")}`);
  const until = (us) => (us === null ? "–" : us / 1000 < now.at_ms ? "now" : `in ${span(us / 1000 - now.at_ms)}`);
  const acts = (job) => (me.admin && can.includes("jobs/run") ? html`<button data-act="run" data-name="${job.name}" ${["claimed", "running"].includes(job.state) ? "disabled" : ""}>Run now</button> <button data-act="pause" data-name="${job.name}" data-paused="${!job.paused}">${job.paused ? "Resume" : "Pause"}</button>` : "");
  show($("schedules"), html`${head("schedules", "Schedules", `${now.jobs.length} jobs`)}<div class="scroll"><table class="fold"><thead><tr><th scope="col">Job</th><th scope="col">When</th><th scope="col">State</th><th scope="col" class="num">Last</th><th scope="col" class="num">Took</th><th scope="col" class="num">Next</th><th scope="col">Worker</th><th scope="col"></th></tr></thead><tbody>${now.jobs.map((job) => html`<tr data-id="${job.name}"><td class="name mono">${job.name}</td><td data-label="When">${job.when}</td><td data-label="State">${jobState(job)}</td><td class="num nowrap" data-label="Last">${job.finished ? ago(job.finished / 1000) : "–"}</td><td class="num nowrap" data-label="Took">${job.finished ? span(job.duration_ms) : "–"}</td><td class="num nowrap" data-label="Next">${until(job.next_us)}</td><td class="soft" data-label="Worker">${job.holder || "–"}</td><td class="num nowrap full">${acts(job)}</td></tr>`)}</tbody></table></div>`);
}

function drawPrimitives() {
  const found = now.inventory, rest = found && !found.complete ? "of the first 200,000 keys" : "";
  const table = (heads, rows) => html`<div class="scroll"><table><thead><tr>${heads.map((name, at) => html`<th scope="col" class="${at ? "num" : ""}">${name}</th>`)}</tr></thead><tbody>${rows}</tbody></table></div>`;
  const { locks } = now;
  show($("locks"), html`${head("locks", "Locks", locks.length ? `${locks.length} held` : "")}${locks.length ? table(["Lock", "TTL", "Fencing"], locks.map((lock) => html`<tr><td class="name"><span class="mono">${lock.name}</span><br><span class="soft">${lock.owner}${lock.waiting ? `, ${lock.waiting} wait` : ""}</span></td><td class="num nowrap">${span(lock.left_ms)}</td><td class="num">${lock.token}</td></tr>`)) : nothing("Nobody holds a lock.")}`);
  const limits = found?.limits ?? [];
  show($("limits"), html`${head("limits", "Rate limits", rest)}${limits.length ? table(["Who", "Counted", "Ends in"], limits.map((use) => html`<tr><td class="name"><span class="mono">${use.key}</span> <span class="soft">${use.strategy}</span></td><td class="num">${use.used ?? "–"}</td><td class="num nowrap">${span(use.left_ms)}</td></tr>`)) : nothing("Nothing is being counted.")}`);
  show($("session-figures"), html`<div class="big"><div><b class="second">${count(found?.kinds["users with sessions"] ?? 0)}</b><span>users with sessions</span></div><div><b class="second">${count(now.sockets)}</b><span>sockets</span></div><div><b class="second">${count(found?.kinds.entries ?? 0)}</b><span>stored entries</span></div></div>`);
}

function drawProcesses() {
  const waits = now.backlog?.shards ?? [];
  const known = new Map([...now.workers, ...now.processes].map(({ name }) => [name, {}]));
  for (const worker of now.workers) known.get(worker.name).worker = worker;
  for (const cache of now.processes) known.get(cache.name).cache = cache;
  const rows = [...known].map(([name, { worker, cache }]) => html`<tr><td class="name mono">${name}</td><td>${worker ? html`<span class="chip ${worker.state === "ready" ? "ok" : "warn"}">${worker.state === "ready" ? "✓" : "▲"} worker, ${worker.state}</span> <span class="soft">${worker.why}</span>` : html`<span class="soft">${cache.gauges.sockets === undefined ? "cache" : `gateway, ${count(cache.gauges.sockets)} sockets`}</span>`}${cache?.queued ? html` <span class="chip bad">✕ ${count(cache.queued)} queued</span>` : ""}</td><td class="num nowrap">${cache ? html`${count(cache.entries)} <span class="soft">in ${bytes(cache.bytes)}</span>` : "–"}</td><td class="num nowrap">${span(cache?.journal_lag_ms)}</td></tr>`);
  const shards = waits.map((shard) => html`<span>shard ${shard.shard}: <b>${count(shard.waiting)}</b> wait, <b>${count(shard.retries)}</b> to retry, held by <b>${shard.holder || "nobody"}</b></span>`);
  show($("processes"), html`${head("processes", "Processes", `${now.workers.length} workers of ${known.size}`)}${rows.length ? html`<div class="scroll"><table><thead><tr><th scope="col">Process</th><th scope="col"></th><th scope="col" class="num">In memory</th><th scope="col" class="num" title="since it last heard of the journal">Journal</th></tr></thead><tbody>${rows}</tbody></table></div>` : nothing("No process has said anything within half a minute.")}<div class="facts">${shards}${now.backlog ? html`<span><b>${count(now.backlog.refreshes)}</b> refreshes wait</span>` : ""}</div>`);
}

function drawAudit() {
  show($("audit"), html`${head("audit", "Audit log", "what was done from this page")}${audit.length ? html`<div class="scroll"><table><tbody>${audit.map((one) => html`<tr><td class="soft nowrap">${ago(one.at_ms)}</td><td class="nowrap">${one.who}</td><td class="nowrap"><b>${one.action}</b></td><td class="name mono">${one.target}</td></tr>`)}</tbody></table></div>` : nothing("Nobody did anything yet.")}`);
}

// -- forms ---

const forms = {
  async inspect({ key }) {
    set("key", key);
    if (!key) return;
    const found = await ask(`inspect?key=${encodeURIComponent(key)}`);
    const row = (one) => html`<dl><dt>state</dt><dd>${one.valid ? html`<span class="chip ok">✓ valid</span>` : html`<span class="chip bad">✕ is not served</span> ${Object.entries(one.invalidated_by).map(([by, ms]) => html`<br><span class="mono">${by}</span> <span class="soft">invalidated ${span(ms)} ago</span>`)}`}</dd><dt>read by</dt><dd class="mono">${one.views.join(", ") || "cache.get()"}</dd><dt>age</dt><dd>${span(one.age_ms)}${!one.valid ? "" : one.fresh_ms > 0 ? `, fresh for ${span(one.fresh_ms)} more` : ", past its TTL, in its stale window"}</dd><dt>tags</dt><dd class="mono">${one.tags.join(", ") || "–"}</dd><dt>size</dt><dd>${bytes(one.raw_bytes)} <span class="soft">→</span> ${bytes(one.stored_bytes)}</dd><dt>load took</dt><dd>${span(one.load_ms)}</dd></dl><pre tabindex="0" aria-label="Value">${one.value}${one.cut ? "\n…" : ""}</pre>`;
    show($("inspected"), found.length ? found.map(row).join("") : nothing(`Nothing is stored under ${key}.`));
  },
  async reach({ kind, name }) {
    set("kind", kind); set("name", name);
    if (!name) return;
    const found = Object.entries(await ask(`reach?kind=${kind}&name=${encodeURIComponent(name)}`));
    const total = found.reduce((sum, [, number]) => sum + number, 0);
    show($("reached"), html`<dl>${found.map(([what, number]) => html`<dt class="mono">${what}</dt><dd><b>${count(number)}</b> stored ${number === 1 ? "entry" : "entries"}</dd>`)}</dl><div class="acts"><button class="danger" data-act="purge" data-kind="${kind}" data-name="${name}" data-total="${total}" ${me.admin ? "" : "disabled"}>Purge ${kind} ${name}</button>${me.admin ? "" : html`<span class="soft">sign in as an admin to do it</span>`}</div>`);
  },
  async sessions({ user }) {
    if (!user) return;
    const found = await ask(`sessions?user=${encodeURIComponent(user)}`);
    show($("sessions-list"), found.length ? html`<dl>${found.map((one) => html`<dt>${ago(one.seen_ms)}</dt><dd>${one.ip ?? "–"} <span class="soft">${(one.agent ?? "").slice(0, 60)}</span></dd>`)}</dl>${me.admin ? html`<div class="acts"><button data-act="logout" data-user="${user}">End all ${found.length}</button></div>` : ""}` : nothing("No live session."));
  },
};

const acts = {
  hold(button) {
    held = !held;
    button.ariaPressed = held;
    if (!held) drawTail();
  },
  async retry({ dataset }) {
    await act("letters/retry", { ids: dataset.ids.split(" ").filter(Boolean) });
  },
  async discard({ dataset }) {
    const ids = dataset.ids.split(" ");
    if (await confirmed(`Discard ${ids.length} dead letter${ids.length > 1 ? "s" : ""}?`, "The event is not handled by that handler, and nobody is told again.", "Discard")) await act("letters/discard", { ids });
  },
  run: ({ dataset }) => act("jobs/run", { name: dataset.name }),
  pause: ({ dataset }) => act("jobs/pause", { name: dataset.name, paused: dataset.paused === "true" }),
  async purge({ dataset }) {
    const { kind, name, total } = dataset;
    if (!(await confirmed(`Purge ${kind} ${name}?`, `${count(Number(total))} stored entries become unreadable in every process. The next read of each loads it anew.`, "Purge"))) return;
    await act("purge", { kind, name });
    show($("reached"), nothing(`Purged ${kind} ${name}.`));
  },
  async logout({ dataset }) {
    if (await confirmed(`End all sessions of user ${dataset.user}?`, "They are logged out everywhere at once.", "End them")) await act("sessions/end", { user: dataset.user });
    await forms.sessions(dataset);
  },
};

document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-form]");
  if (!form) return;
  event.preventDefault();
  forms[form.dataset.form](Object.fromEntries(new FormData(form))).catch((failed) => toast(failed.message, true));
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  if (button.dataset.act) acts[button.dataset.act](button);
  else if (button.dataset.set) { set(...button.dataset.set.split("=")); refresh(); }
  else if (button.dataset.sort) { set("sort", (get("sort") === `-${button.dataset.sort}` ? "" : "-") + button.dataset.sort); drawViews(); }
});

const filters = { view: () => now && drawViews(), live: drawTail, letter: drawLetters };
document.addEventListener("input", ({ target }) => {
  if (target.type !== "search") return;
  set(target.name, target.value);
  filters[target.name]();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  document.querySelector("input[name=view]").focus();
});

// -- begin ---

async function enter() {
  const code = location.hash.match(/^#enter=(.+)/)?.[1];
  if (!code) return;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    await ask("enter", { code });
  } catch (failed) {
    toast(failed.message, true);
  }
}

for (const field of document.querySelectorAll("input, select")) if (query.has(field.name)) field.value = query.get(field.name);
readable($("reads"), () => steps().length, drawReads);
readable($("latency"), () => now.minutes.length, drawLatency);
new ResizeObserver(() => { if (now) { drawReads(); drawLatency(); } }).observe(document.body);
await enter();
await refresh();
await rarely();
watch();
if (get("key")) document.querySelector("[data-form=inspect]").requestSubmit();
if (get("name")) document.querySelector("[data-form=reach]").requestSubmit();
setInterval(() => { if (!document.hidden) refresh(); }, 2000);
setInterval(() => { if (!document.hidden) rarely(); }, 4000);
