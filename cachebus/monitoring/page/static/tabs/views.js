// Views: what each is asked, how it is answered, what makes it old; one of them over a day; two compared.

import { ask, query } from "../api.js";
import { chart, markList, place } from "../charts.js";
import { html } from "../dom.js";
import { LAYERS, ago, bar, button, choice, fact, filter, head, none, older, scopeLink, sorted, sparkline, table } from "../parts.js";
import { href } from "../route.js";
import { bytes, count, number, share, span, step } from "../words.js";

const WINDOWS = [["10m", "10 min"], ["1h", "1 h"], ["24h", "24 h"]];
const hits = (row) => { const asked = row.memory + row.redis + row.joined + row.missed; return asked ? 1 - row.missed / asked : null; };
const causes = (of) => Object.entries(of).sort(([, one], [, other]) => other - one);
const said = (of) => causes(of).map(([kind, many]) => `${count(many)} by ${kind === "event" ? "events" : kind}`).join(", ");

export function screen({ noun, params }) {
  if (noun === "compare") return compared(params);
  return noun ? one(noun, params) : all(params);
}

// -- all ---

function all(params) {
  const wanted = params.window ?? "1h", order = params.sort ?? "-cost_ms", text = (params.q ?? "").toLowerCase();
  return {
    key: "views", every: 3000, path: `views${query({ window: wanted, from: params.from, until: params.until })}`,
    draw({ rows, more, lines, marks }) {
      const shown = sorted(rows.map((row) => ({ ...row, hits: hits(row), warm: row.loads ? row.warms / row.loads : null })).filter(({ name }) => name.toLowerCase().includes(text)), order);
      const line = (row) => ({ key: row.name, cells: [
        html`<a class="mono" href="${href("views", row.name)}">${row.name}</a>`,
        count(row.requests), share(row.hits), sparkline(lines[row.name] ?? [], "hit ratio"), bar(row),
        row.load_p50_ms === null ? span(row.load_ms) : html`<span title="p50 ${step(row.load_p50_ms)}, ${span(row.load_ms)} on average">${step(row.load_p95_ms)}</span>`, row.raw_bytes === null ? "–" : `${bytes(row.raw_bytes)} → ${bytes(row.stored_bytes ?? row.raw_bytes)}`,
        row.ttl_ms === null ? "–" : span(row.ttl_ms), share(row.warms, row.loads),
        html`<span title="${said(row.causes)}">${count(row.invalidations)}</span>${causes(row.causes)[0] ? html` <small>${causes(row.causes)[0][0]}</small>` : ""}`,
        span(row.cost_ms),
      ] });
      const columns = [["View", "name", "name"], ["Reads", "num", "requests"], ["Hits", "num", "hits"], ["Hit ratio", "less"], ["Answered by"], ["Load p95", "num", "load_p95_ms"], ["Value → stored", "num less", "raw_bytes"], ["TTL", "num less", "ttl_ms"], ["Warmed", "num less", "warm"], ["Invalidations / min", "num", "invalidations"], ["Cost", "num", "cost_ms"]];
      const from = params.from ? html`<button type="button" data-act="clear" data-names="from until">chosen window ✕</button>` : "";
      return html`<section class="card">${head("Views", html`${filter("q", params.q, "filter views")}${from}${choice("Window", "window", WINDOWS, wanted)}`, 1)}
<p class="soft">${number(rows.length + more, "view")}; cost is what its loads took, whatever for; how long one load takes is the upper end of its step. ${shown.length > 1 ? html`<a href="${href("views", "compare", { a: shown[0].name, b: shown[1].name, window: wanted })}">Compare two</a>` : ""}</p>
${shown.length ? table("Views", columns, shown.map(line), { sort: order }) : none("No view is like that, or none was read.")}${older(more)}${markList(marks)}</section>`;
    },
  };
}

// -- one ---

function one(name, params) {
  const wanted = params.window ?? "24h";
  return {
    key: `view ${name}`, every: 5000, path: `view${query({ name, window: wanted, from: params.from, until: params.until })}`,
    draw(data) {
      const { row, marks, steps } = data;
      return html`<p class="crumb"><a href="${href("views")}">Views</a> /</p>
<section class="card">${head(html`<span class="mono">${name}</span>`, html`<a href="${href("views", "compare", { a: name })}">compare</a>${button("Purge all its values", "purge", prefix(name), { title: `Purge everything under ${prefix(name).name}?`, text: "It will be unreadable in every process; the next read of each loads it again.", yes: "Purge" }, "danger")}${choice("Window", "window", WINDOWS, wanted)}`, 1)}
${row ? figures(row) : none("Nobody has read or declared it in this window.")}
<div class="plots">${plot("Reads, by what answered them", "reads")}${plot("Hit ratio", "ratio")}${plot("What makes it old, by kind of cause", "causes")}${plot("Loads by purpose", "loads")}${plot("One load", "load")}${plot("One value", "size")}</div>${markList(marks)}</section>
<div class="pair">${recent(data)}${policy(data)}${hottest(data)}${largest(data)}</div>`;
    },
    after: (root, data) => draw(root, data),
  };
}

const plot = (title, name) => html`<div><h2 class="sub">${title}</h2>${place(name, "low")}</div>`;

const prefix = (name) => {
  const begin = name.slice(0, name.indexOf("{") < 0 ? name.length : name.indexOf("{"));
  return begin.endsWith(":") ? { kind: "prefix", name: begin } : { kind: "key", name };
};

const figures = (row) => html`<dl class="facts">${fact("reads", count(row.requests))}${fact("hits", share(hits(row)))}${fact("loads", count(row.loads))}${fact("warmed", share(row.warms, row.loads))}${fact("one load, p50", step(row.load_p50_ms))}${fact("p95", step(row.load_p95_ms))}${fact("average", span(row.load_ms))}${fact("one hit", row.hit_us === null ? "–" : `${row.hit_us.toFixed(0)} µs`)}${fact("value", bytes(row.raw_bytes))}${fact("stored", bytes(row.stored_bytes))}${fact("invalidations", `${count(row.invalidations)} / min${said(row.causes) ? ` (${said(row.causes)})` : ""}`)}${fact("cost", span(row.cost_ms))}${row.errors ? fact("failed", count(row.errors)) : ""}${row.bypassed ? fact("not cached", count(row.bypassed)) : ""}${row.stale ? fact("served stale", count(row.stale)) : ""}</dl>`;

function draw(root, { steps, marks, window }) {
  const find = (which) => root.querySelector(`[data-chart=${which}]`);
  const at = steps.map((each) => each.at), of = (which) => steps.map((each) => each[which]);
  const kinds = [...new Set(steps.flatMap((each) => Object.keys(each.causes)))].slice(0, 4);
  const LOOKS = ["memory", "redis", "joined", "missed"];
  chart(find("reads"), { title: "Reads", at, marks, window, stack: true, format: count, series: LAYERS.map(([key, label]) => ({ name: key, label, values: of(key) })) });
  chart(find("ratio"), { title: "Hit ratio", at, marks, window, most: 1, format: (value) => share(value), series: [{ name: "memory", label: "hits", values: steps.map(hits) }] });
  chart(find("load"), { title: "One load", at, marks, window, log: true, format: step, series: [{ name: "p50", label: "p50", values: of("load_p50_ms") }, { name: "p95", label: "p95", values: of("load_p95_ms"), dash: [6, 3] }] });
  chart(find("size"), { title: "One value", at, marks, window, format: bytes, series: [{ name: "p50", label: "value", values: of("raw_bytes") }, { name: "p95", label: "stored", values: of("stored_bytes"), dash: [6, 3] }] });
  chart(find("loads"), { title: "Loads by purpose", at, marks, window, stack: true, format: count, series: [{ name: "missed", label: "for readers", values: steps.map((each) => each.loads - each.warms) }, { name: "redis", label: "warmed or renewed", values: of("warms") }] });
  chart(find("causes"), { title: "Invalidations by kind of cause", at, marks, window, stack: true, format: count, series: (kinds.length ? kinds : ["event"]).map((kind, place_) => ({ name: LOOKS[place_], label: kind, values: steps.map((each) => each.causes[kind] ?? 0) })) });
}

const recent = ({ recent: found }) => html`<section class="card">${head("Who made values old", html`<span class="soft">by name, in the last 24 h; a name of it and an event's id while the journal has them: two minutes</span>`)}${found.length ? table("Recent causes", [["Cause", "name"], ["Times", "num"], ["Last", "num"], ["A name of it"]], found.map((each) => ({ key: `${each.kind} ${each.who} ${each.what}`, cells: [html`${each.kind} <b>${each.who || "of other names"}</b> ${each.kind !== "event" ? each.what : each.what ? html`<a href="${href("events", each.what)}">the last one</a>` : ""}`, count(each.times), ago(each.last_ms), each.scope ? scopeLink(each.scope) : "–"] }))) : none("Nobody, in the last 24 h.")}</section>`;

const policy = ({ policy: declared, row }) => html`<section class="card">${head("Policy")}<dl class="sheet">${Object.keys(declared).length ? Object.entries(declared).map(([name, value]) => fact(name.replaceAll("_", " "), typeof value === "number" && name !== "critical" ? span(value) : Array.isArray(value) ? value.map((each) => html`<span class="mono">${each}</span> `) : String(value))) : fact("ttl", row ? span(row.ttl_ms) : "–")}</dl>${Object.keys(declared).length ? "" : html`<p class="soft">This process does not have the view; the page of a worker shows the rest.</p>`}</section>`;

const hottest = ({ hottest: found }) => html`<section class="card">${head("Read most", html`<span class="soft">a read half an hour ago counts half; sampled</span>`)}${found.length ? table("Read most", [["Key", "name"], ["Reads", "num"]], found.map(({ key, reads }) => ({ key, cells: [key.startsWith("[") ? html`<span class="mono">${key}</span>` : html`<a class="mono" href="${href("keys", key)}">${key}</a>`, count(reads)] }))) : none("Nothing was sampled yet.")}</section>`;

const largest = ({ largest: found, looked_at }) => html`<section class="card">${head("Largest stored", html`<span class="soft">of ${number(looked_at, "entry", "entries")}, now</span>`)}${found.length ? table("Largest", [["Key", "name"], ["Stored", "num"]], found.map((each) => ({ key: each.key, cells: [html`<a class="mono" href="${href("keys", each.key)}">${each.key}</a>`, bytes(each.stored_bytes)] }))) : none("Nothing is stored.")}</section>`;

// -- two ---

function compared(params) {
  const wanted = params.window ?? "24h", { a = "", b = "" } = params;
  const other = (name) => (name ? ask(`view${query({ name, window: wanted })}`).then(({ data }) => data) : null);
  let two = [null, null];
  return {
    key: "compare", every: 5000, path: `views${query({ window: wanted })}`,
    draw({ rows }) {
      const pick = (name, chosen) => html`<select name="${name}" aria-label="${name === "a" ? "First view" : "Second view"}"><option value="">choose a view</option>${rows.map((row) => html`<option value="${row.name}" ${row.name === chosen ? "selected" : ""}>${row.name}</option>`)}</select>`;
      const [one_, other_] = [a, b].map((name) => rows.find((row) => row.name === name));
      const lines = [["reads", (row) => count(row.requests)], ["hits", (row) => share(hits(row))], ["one load, p50", (row) => step(row.load_p50_ms)], ["one load, p95", (row) => step(row.load_p95_ms)], ["one load, average", (row) => span(row.load_ms)], ["loads", (row) => count(row.loads)], ["warmed", (row) => share(row.warms, row.loads)], ["value", (row) => bytes(row.raw_bytes)], ["stored", (row) => bytes(row.stored_bytes)], ["TTL", (row) => span(row.ttl_ms)], ["invalidations / min", (row) => count(row.invalidations)], ["cost", (row) => span(row.cost_ms)]];
      const sheet = one_ && other_ ? html`<table><caption class="unseen">Two views</caption><thead><tr><th scope="col">Figure</th><th scope="col" class="num mono long">${a}</th><th scope="col" class="num mono long">${b}</th></tr></thead><tbody>${lines.map(([title, value]) => html`<tr data-key="${title}"><td>${title}</td><td class="num">${value(one_)}</td><td class="num">${value(other_)}</td></tr>`)}</tbody></table>` : none("Choose two views.");
      return html`<p class="crumb"><a href="${href("views")}">Views</a> /</p><section class="card">${head("Two views compared", choice("Window", "window", WINDOWS, wanted), 1)}<form data-form="pick">${pick("a", a)}${pick("b", b)}<button>Compare</button></form><div class="scroll" tabindex="0" role="group" aria-label="Two views">${sheet}</div>${one_ && other_ ? html`<h2 class="sub">Hit ratio</h2>${place("ratio", "low")}<h2 class="sub">Reads</h2>${place("reads", "low")}<h2 class="sub">One load, p50</h2>${place("load", "low")}<h2 class="sub">One load, p95</h2>${place("slow", "low")}` : ""}</section>`;
    },
    async after(root) {
      if (!a || !b) return;
      two = await Promise.all([other(a), other(b)]);
      if (!two[0] || !two[1] || !root.isConnected) return;
      const [{ steps, marks, window }, second] = two, at = steps.map((each) => each.at);
      const lines = (value) => [{ name: "memory", label: a, values: steps.map(value) }, { name: "missed", label: b, values: second.steps.map(value), dash: [6, 3] }];
      const asked = (each) => each.memory + each.redis + each.joined + each.missed;
      chart(root.querySelector("[data-chart=ratio]"), { title: "Hit ratio", at, marks, window, most: 1, format: (value) => share(value), series: lines(hits) });
      chart(root.querySelector("[data-chart=reads]"), { title: "Reads", at, marks, window, format: count, series: lines(asked) });
      chart(root.querySelector("[data-chart=load]"), { title: "One load, p50", at, marks, window, log: true, format: step, series: lines((each) => each.load_p50_ms) });
      chart(root.querySelector("[data-chart=slow]"), { title: "One load, p95", at, marks, window, log: true, format: step, series: lines((each) => each.load_p95_ms) });
    },
    forms: { pick: (fields) => { location.hash = href("views", "compare", { ...params, ...fields }); } },
  };
}
