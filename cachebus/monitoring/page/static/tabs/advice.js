// Advice: what the last analysis says should be changed, what that would bring, and why.

import { chart, place } from "../charts.js";
import { html } from "../dom.js";
import { ago, button, chip, due, fact, head, none, serverNow, signIn, sparkline, table } from "../parts.js";
import { href } from "../route.js";
import { bytes, count, moment, number, share, span } from "../words.js";

const GRADES = { high: "ok", medium: "warn", low: "" };

export const screen = () => ({
  key: "advice", every: 4000, path: "advice",
  draw: ({ report, progress }) => html`<section class="card">${head("Advice", progress ? "" : html`${button("Analyse for 10 min", "advice/start", { minutes: 10 })}${button("for 1 h", "advice/start", { minutes: 60 })}`, 1)}${progress ? underWay(progress) : signIn("start an analysis")}${report ? about(report) : none("No analysis was made yet. It records a sample of reads, and says what would save most time of the database. Nothing acts on it by itself.")}</section>
${report ? html`${advices(report)}${memory(report)}${views(report)}<div class="pair">${tags(report)}${hot(report)}${together(report)}</div>` : ""}`,
  after(root, { report }) { if (report) charts(root, report); },
});

const underWay = ({ asked_by, began_ms, ends_ms, sampled }) => html`<p>${chip("ok", "recording")} as ${asked_by} asked, ${began_ms > serverNow() ? `begins ${due(began_ms)}` : `ends ${due(ends_ms)}`}; ${number(sampled, "read")} sampled so far.</p>`;

const about = ({ at_ms, recording: of, silent }) => html`<dl class="facts">${fact("computed", html`${moment(at_ms)} (${ago(at_ms)})`)}${fact("recorded for", span(1000 * of.seconds))}${fact("by", of.asked_by)}${fact("reads", count(of.reads))}${fact("sampled", `${count(of.sampled)} (${share(of.rate)} of the keys)`)}${fact("processes", count(of.processes))}${of.lost ? fact("lost", count(of.lost)) : ""}</dl>${silent ? html`<p>${chip("warn", "no advice")} ${silent}</p>` : ""}`;

function advices({ advice, silent }) {
  if (!advice.length) return silent ? "" : html`<section class="card">${head("What to change")}${none("Nothing: what was recorded gives no reason to change anything.")}</section>`;
  const one = (each) => html`<details data-key="${each.kind} ${each.subject}" class="advice"><summary>${chip(GRADES[each.confidence] ?? "", `${each.confidence} confidence`)} <b>${each.sentence}</b> <span class="soft">saves ${span(1000 * each.database_s)} of the database and ${span(1000 * each.waiting_s)} of waiting a day</span></summary>
<dl class="sheet">${fact("about", html`${each.kind} <span class="mono">${each.subject}</span>`)}${each.now ? fact("now", each.now) : ""}${each.then ? fact("then", each.then) : ""}${each.hits_now === null ? "" : fact("answered without a load", `${share(each.hits_now)} now, ${each.hits_then === null ? "–" : share(each.hits_then)} then (± ${share(each.error)})`)}${each.caution ? fact("only if", each.caution) : ""}${each.why.map(({ what, value }) => fact(what, value))}</dl></details>`;
  return html`<section class="card">${head("What to change", html`<span class="soft">by time of the database saved a day</span>`)}${advice.map(one)}</section>`;
}

const memory = ({ memory: curve }) => (curve ? html`<section class="card">${head("How much memory would answer", html`<span class="soft">CACHE_MAX_MEMORY_ENTRIES is ${count(curve.entries_now)}, memory answers ${share(curve.hits_measured.median)}, ${number(curve.processes, "process", "processes")}</span>`)}${curve_(curve)}${table("Memory", [["Entries", "num"], ["Reads answered by memory", "num"], ["Lowest process", "num"], ["Highest process", "num"], ["", ""]], curve.points.map((each) => ({ key: each.entries, kind: each.entries === curve.entries_now ? "warn" : "", cells: [`${count(each.entries)}${each.entries === curve.entries_now ? " (now)" : ""}`, share(each.hits.median), share(each.hits.low), share(each.hits.high), html`<svg width="160" height="8" role="img" aria-label="${share(each.hits.median)}"><rect class="track" width="160" height="8" rx="4"/><rect class="used" width="${(160 * each.hits.median).toFixed(1)}" height="8" rx="4"/></svg>`] })))}</section>` : "");

/** Hits by size of memory, with the spread of processes; the size of now is marked. */
function curve_({ points, entries_now }) {
  const width = 640, height = 150, low = Math.log(points[0].entries), high = Math.log(points.at(-1).entries);
  const x = (entries) => (((Math.log(entries) - low) / (high - low || 1)) * (width - 20) + 10).toFixed(1), y = (hits) => (height - 8 - (height - 16) * hits).toFixed(1);
  const line = (of) => points.map((each, at) => `${at ? "L" : "M"}${x(each.entries)} ${y(of(each.hits))}`).join("");
  const band = `${line(({ high: most }) => most)}${[...points].reverse().map((each) => `L${x(each.entries)} ${y(each.hits.low)}`).join("")}Z`;
  return html`<svg class="curve" viewBox="0 0 ${width} ${height}" role="img" aria-label="Reads answered by memory, by its size; the table below has the figures"><path class="band" d="${band}"/><path class="line" d="${line(({ median }) => median)}"/><line class="now" x1="${x(entries_now)}" x2="${x(entries_now)}" y1="0" y2="${height}"/></svg>`;
}

function views({ views: found }) {
  const line = (each) => ({ key: each.name, cells: [html`<a class="mono" href="${href("views", each.name)}">${each.name}</a>`, count(each.reads), share(each.hits), count(each.loads), span(each.load_ms), each.ttl_s === null ? "–" : span(1000 * each.ttl_s), share(each.ended_unread, each.ended), span(1000 * each.database_s), each.ttl.length ? html`${sparkline(each.ttl.map(({ hits }) => hits), `hits by TTL, ${span(1000 * each.ttl[0].ttl_s)} to ${span(1000 * each.ttl.at(-1).ttl_s)}`)}<small>${each.ttl.map((point) => html`${span(1000 * point.ttl_s)}: ${share(point.hits)} `)}</small>` : html`<span class="soft">too little was seen</span>`] });
  return html`<section class="card">${head("Views as recorded")}${found.length ? table("Views", [["View", "name"], ["Reads", "num"], ["Hits", "num"], ["Loads", "num"], ["One load", "num less"], ["TTL", "num less"], ["Ended unread", "num less"], ["Database a day", "num"], ["Hits by TTL", "why"]], found.map(line)) : none("No view was read.")}${found.length ? html`<h2 class="sub">Hours</h2>${place("hours", "low")}` : ""}</section>`;
}

function charts(root, { hours }) {
  chart(root.querySelector("[data-chart=hours]"), { title: "Hours", at: hours.map(({ at_s }) => at_s), fixed: true, format: count, series: [{ name: "memory", label: "reads", values: hours.map(({ reads }) => reads) }, { name: "missed", label: "loads", values: hours.map(({ loads }) => loads), dash: [6, 3] }] });
}

const tags = ({ tags: found }) => html`<section class="card">${head("Tags as recorded")}${found.length ? table("Tags", [["Tag", "name"], ["Invalidations", "num"], ["Entries met", "num"], ["Unread", "num"], ["Same value again", "num"]], found.map((each) => ({ key: each.template, cells: [html`<span class="mono">${each.template}</span>`, count(each.invalidations), count(each.met), share(each.met_unread), share(each.reloads_same, each.reloads)] }))) : none("No tag was invalidated.")}</section>`;

const hot = ({ hot_keys, big_keys }) => html`<section class="card">${head("Keys read most, and largest", html`<span class="soft">by hash; cachebus top names them</span>`)}${table("Keys", [["View", "name"], ["Hash"], ["Reads", "num"], ["Value", "num"]], [...hot_keys.slice(0, 10), ...big_keys.slice(0, 5)].map((each, at) => ({ key: `${at} ${each.hash}`, cells: [html`<span class="mono">${each.view}</span>`, html`<span class="mono">${each.hash}</span>`, `${count(each.reads)} (${share(each.share)})`, bytes(each.value_bytes)] })))}</section>`;

const together = ({ co_reads: found }) => html`<section class="card">${head("Read one after the other")}${found.length ? table("Read together", [["First", "name"], ["Then"], ["Share", "num"], ["Of", "num"]], found.map((each) => ({ key: `${each.first} ${each.then}`, cells: [html`<span class="mono">${each.first}</span>`, html`<span class="mono">${each.then}</span>`, share(each.share), count(each.of)] }))) : none("Nothing stands out.")}</section>`;
