// Machine: Redis over a day and what it holds, processes, shards, and what doctor would say.

import { chart, markList, place } from "../charts.js";
import { html } from "../dom.js";
import { ago, chip, fact, filter, head, meter, none, table } from "../parts.js";
import { bytes, clock, count, moment, number, span } from "../words.js";

export const screen = ({ params }) => ({
  key: "machine", every: 4000, path: "machine",
  draw: (data, { state }) => html`<section class="card">${head("Redis", data.servers.map((each) => (each.up ? "" : chip("bad", `${each.name} does not answer`))), 1)}${data.servers.map(server)}${state.known ? html`${data.samples.length > 1 ? html`<h2 class="sub">Memory</h2>${place("memory", "low")}<h2 class="sub">Commands a second</h2>${place("commands", "low")}${markList(data.marks)}` : html`<p class="soft">A day of memory and commands is drawn once a worker has watched for two minutes.</p>`}` : none("Not known while Redis is unavailable.")}</section>
${state.known ? html`<div class="pair">${findings(data)}${stored(data)}</div>${processes(data, params)}<div class="pair">${shards(data)}${releases(data)}${slow(data)}${clients(data)}</div>` : ""}`,
  after(root, { samples, marks }) {
    if (samples.length < 2) return;
    const at = samples.map(({ at_ms }) => at_ms / 1000), of = (name) => samples.map((each) => each[name]);
    const limit = samples.at(-1).limit;
    chart(root.querySelector("[data-chart=memory]"), { title: "Memory of Redis", at, marks, fixed: true, format: bytes, series: [{ name: "memory", label: "used", values: of("memory") }, ...(limit ? [{ name: "p99", label: "limit", values: of("limit"), dash: [6, 3] }] : [])] });
    chart(root.querySelector("[data-chart=commands]"), { title: "Commands", at, marks, fixed: true, format: count, series: [{ name: "memory", label: "commands a second", values: of("commands_a_second") }, { name: "p95", label: "connections", values: of("clients"), dash: [6, 3] }] });
  },
});

function server(each) {
  if (!each.up) return html`<div data-key="${each.name}">${none(`${each.name} does not answer.`)}</div>`;
  const most = each.memory_limit || each.machine_memory;
  return html`<div data-key="${each.name}">${meter(`${each.name}: memory`, each.memory, most, `${bytes(each.memory)} of ${bytes(each.memory_limit) === "0 B" ? `${bytes(each.machine_memory)} of the machine; no limit is set (maxmemory)` : bytes(each.memory_limit)}`)}${meter("connections", each.clients, each.most_clients, `${count(each.clients)} of ${count(each.most_clients)}`)}
<dl class="facts">${fact("server", each.version || "not said")}${fact("round trip", span(each.round_trip_ms))}${fact("commands", `${count(each.commands_a_second)} / s`)}${fact("up for", span(1000 * each.uptime_s))}${fact("policy", each.policy || "not said")}${fact("evicted", count(each.evicted))}${fact("peak", bytes(each.peak))}${each.fragmentation ? fact("fragmentation", each.fragmentation.toFixed(2)) : ""}${each.persistence ? fact("on disk", each.persistence) : ""}</dl>${Object.keys(each.parts).length ? html`<dl class="facts">${Object.entries(each.parts).map(([what, size]) => fact(what, bytes(size)))}</dl>` : ""}</div>`;
}

const findings = ({ findings: found }) => {
  const grades = { ok: "ok", warning: "warn", bad: "bad" }, wrong = found.filter(({ grade }) => grade !== "ok"), well = found.filter(({ grade }) => grade === "ok");
  const line = ({ grade, what, fix }) => html`<li data-key="${what}">${chip(grades[grade], grades[grade] === "ok" ? "fine" : grades[grade] === "warn" ? "warning" : "wrong")} ${what}${fix ? html`<br><small>fix: ${fix}</small>` : ""}</li>`;
  return html`<section class="card">${head("What doctor says", html`<code>cachebus doctor</code>`)}<ul class="marks">${wrong.map(line)}</ul>${well.length ? html`<details><summary>${number(well.length, "thing")} in order</summary><ul class="marks">${well.map(line)}</ul></details>` : ""}</section>`;
};

function stored({ inventory }) {
  const kinds = Object.entries(inventory.kinds);
  return html`<section class="card">${head("What is stored, by kind", html`<span class="soft">${inventory.complete ? "each half minute" : "of the first 200,000 keys"}</span>`)}<div class="scroll" tabindex="0" role="region" aria-label="What is stored">${kinds.length ? table("Stored", [["Kind", "name"], ["Keys", "num"], ["Memory, about", "num"]], kinds.map(([kind, many]) => ({ key: kind, cells: [kind, count(many), inventory.bytes[kind] ? bytes(inventory.bytes[kind]) : "–"] }))) : none("Nothing.")}</div></section>`;
}

function processes({ processes: found, workers }, params) {
  const low = (params.process ?? "").toLowerCase(), known = new Map([...workers, ...found].map(({ name }) => [name, {}]));
  for (const each of workers) known.get(each.name).worker = each;
  for (const each of found) known.get(each.name).cache = each;
  const row = ([name, { worker, cache }]) => ({ key: name, kind: (worker && worker.state !== "ready") || cache?.refused ? "warn" : "", cells: [
    html`<span class="mono">${name}</span>`,
    worker ? html`${chip(worker.state === "ready" ? "ok" : "warn", `worker, ${worker.state}`)} <small>${worker.why}</small>` : cache.gauges.sockets === undefined ? "cache" : `gateway, ${number(cache.gauges.sockets, "socket")}`,
    cache ? (cache.refused ? chip("bad", "Redis refuses its reads", cache.refused) : chip("ok", "served")) : "–",
    cache ? `${count(cache.entries)} in ${bytes(cache.bytes)}` : "–", cache?.journal_lag_ms === null || !cache ? "–" : span(cache.journal_lag_ms), cache ? count(cache.queued) : "–",
    html`<span class="mono">${(cache?.release ?? "").slice(0, 12) || "–"}</span>`, cache?.version || "–", cache ? ago(cache.at_us / 1000) : ago(worker.at_us / 1000),
  ] });
  const rows = [...known].filter(([name]) => name.toLowerCase().includes(low));
  return html`<section class="card">${head(`Processes: ${number(workers.length, "worker")} of ${count(known.size)}`, filter("process", params.process, "filter processes"))}${rows.length ? table("Processes", [["Process", "name"], ["Is"], ["Redis"], ["In memory", "num"], ["Journal lag", "num"], ["Queued", "num less"], ["Release", "less"], ["Version", "less"], ["Reported", "num"]], rows.map(row)) : none("No process is like that.")}</section>`;
}

const shards = ({ backlog }) => html`<section class="card">${head("Shards")}${table("Shards", [["Shard"], ["Held by", "name"], ["Waiting", "num"], ["To retry", "num"], ["Kept", "num"]], backlog.shards.map((each) => ({ key: each.shard, kind: each.stored && !each.holder ? "bad" : "", cells: [each.shard, each.holder || (each.stored ? chip("bad", "nobody") : "nobody"), count(each.waiting), count(each.retries), count(each.stored)] })))}</section>`;

const releases = ({ releases: found }) => html`<section class="card">${head("Releases")}${found.length ? table("Releases", [["Release", "name"], ["First seen", "num"]], found.map((each) => ({ key: each.name, cells: [html`<span class="mono">${each.name}</span>`, html`${moment(each.at_ms)} (${ago(each.at_ms)})`] }))) : none("No release is named: set RELEASE, or let the platform do it.")}</section>`;

const slow = ({ slow: found }) => html`<section class="card">${head("Slow commands", html`<span class="soft">SLOWLOG, without values</span>`)}${found === null ? none("The server does not say.") : found.length ? table("Slow commands", [["Command", "name"], ["Took", "num"], ["At", "num"]], found.map((each, at) => ({ key: `${each.at_ms} ${at}`, cells: [html`<span class="mono">${each.command}</span>`, span(each.took_ms), clock(each.at_ms, true)] }))) : none("None.")}</section>`;

const clients = ({ clients: found }) => html`<section class="card">${head("Connections, by machine")}${found === null ? none("The server does not say, or has more than 2,000.") : table("Connections", [["From", "name"], ["Name"], ["Connections", "num"]], found.map((each) => ({ key: `${each.host} ${each.name}`, cells: [html`<span class="mono">${each.host}</span>`, each.name || "–", count(each.connections)] })))}</section>`;
