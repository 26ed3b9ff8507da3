// Now: how it is, since when and why; five figures; one time axis; what would change the state.

import { query } from "../api.js";
import { chart, markList, place } from "../charts.js";
import { html } from "../dom.js";
import { LAYERS, ago, bar, button, chip, choice, fact, head, serverNow } from "../parts.js";
import { href } from "../route.js";
import { bytes, clock, count, number, share, span, step } from "../words.js";

const SIGNS = { ok: "·", warn: "▲", bad: "✕" };
const WINDOWS = [["10m", "10 min"], ["1h", "1 h"], ["24h", "24 h"]];

export const screen = ({ params }) => {
  const wanted = params.window ?? "1h";
  return {
    key: "now", alone: true, every: 2000,
    path: `now${query({ window: wanted, from: params.from, until: params.until })}`,
    draw: (data, { state }) => html`${verdict(state)}${data.steps.length ? html`${tiles(data)}${axis(data, wanted)}` : ""}${pages(data)}`,
    after: (root, data) => { if (data.steps.length) charts(root, data); },
  };
};

function verdict({ level, says, reasons }) {
  const since = reasons.filter((reason) => reason.level === level && reason.since_ms).map(({ since_ms }) => since_ms);
  const first = since.length ? html`<p class="since">since <b>${clock(Math.min(...since), true)}</b> (${ago(Math.min(...since))})</p>` : "";
  const row = (reason) => html`<li data-key="${reason.key}" class="${reason.level}"><i aria-hidden="true">${SIGNS[reason.level]}</i><a href="${href(reason.tab)}">${reason.text}</a>${reason.since_ms && reason.level !== "ok" ? html` <span class="soft">since ${clock(reason.since_ms, true)}${reason.began ? html`, began <b>${reason.began}</b>` : ""}</span>` : ""}</li>`;
  return html`<section class="verdict ${level}" data-key="verdict"><span class="sign" aria-hidden="true">${{ ok: "✓", warn: "▲", bad: "✕" }[level]}</span><div><h1>${says}</h1>${first}<ul>${reasons.map(row)}</ul></div></section>`;
}

function tiles({ fresh, reads, waiting, memory, window }) {
  const of = window.chosen ? `${clock(1000 * window.from_s)} – ${clock(1000 * window.until_s)}` : { 600: "10 min", 3600: "1 h", 86400: "24 h" }[Math.round(window.until_s - window.from_s)] ?? "";
  const hits = reads.memory + reads.redis + reads.joined, asked = hits + reads.missed;
  const loads = reads.loads + reads.refreshes + reads.warms;
  const tile = (key, title, figure, under, more, tab) => html`<section class="card tile" data-key="${key}"><h2><a href="${href(tab)}">${title}</a></h2><p class="figure">${figure}</p><p class="soft">${under}</p>${more}</section>`;
  const full = memory.limit ? (memory.full_in_ms === null ? "not growing" : html`full in <b>${span(memory.full_in_ms)}</b> at this pace`) : "no limit is set (maxmemory)";
  return html`<div class="tiles" data-key="tiles">${[
    tile("fresh", `Fresh within ${span(fresh.target_ms)}`, share(fresh.within, fresh.events), fresh.events ? `of ${number(fresh.events, "event")}, ${of}` : `no event, ${of}`, html`<dl class="facts">${fact("p50", step(fresh.p50))}${fact("p95", step(fresh.p95))}${fact("p99", step(fresh.p99))}</dl>`, "events"),
    tile("hits", "Users' hits", share(hits, asked), `of ${number(asked, "read")}, ${of}`, html`${bar(reads, 180, 12)}${reads.bypassed ? html`<p class="soft">${number(reads.bypassed, "read")} not cached</p>` : ""}`, "views"),
    tile("loads", "Loads", count(loads), `${span(reads.load_ms)} of the source, ${of}`, html`<dl class="facts">${fact("for readers", count(reads.loads))}${fact("renewed", count(reads.refreshes))}${fact("warmed", count(reads.warms))}${reads.errors ? fact("failed", html`<b class="bad">${count(reads.errors)}</b>`) : ""}</dl>`, "views"),
    tile("waiting", "Waiting", count(waiting.events), "events, now", html`<dl class="facts">${fact("retries", count(waiting.retries))}${fact("refreshes", count(waiting.refreshes))}${fact("delayed", count(waiting.delayed))}${fact("dead letters", html`<a href="${href("failures")}">${count(waiting.letters)}</a>`)}${fact("sockets", html`<a href="${href("browsers")}">${count(waiting.sockets)}</a>`)}</dl>`, "events"),
    tile("memory", "Redis memory", bytes(memory.used), memory.limit ? `${share(memory.used, memory.limit)} of ${bytes(memory.limit)}, now` : "now", html`<p class="soft">${full}</p>`, "machine"),
  ]}</div>`;
}

function axis({ window, marks, steps }, wanted) {
  const clear = window.chosen ? html`<button type="button" data-act="clear" data-names="from until">${clock(1000 * window.from_s)} – ${clock(1000 * window.until_s)} ✕</button>` : html`<span class="soft">drag to choose a window</span>`;
  return html`<section class="card" data-key="axis">${head(steps.length === 24 ? "The last day, by hours" : "The last hour, by minutes", html`${clear}${choice("Window", "window", WINDOWS, wanted)}`)}
<h2 class="sub">Event → fresh</h2>${place("fresh", "low")}<h2 class="sub">Reads, by what answered them</h2>${place("reads")}<h2 class="sub">Loads</h2>${place("loads", "low")}${markList(marks)}</section>`;
}

function charts(root, { steps, marks, window }) {
  const at = steps.map((each) => each.at), of = (name) => steps.map((each) => each[name]);
  const find = (name) => root.querySelector(`[data-chart=${name}]`);
  chart(find("fresh"), { title: "Event to fresh", at, marks, window, log: true, format: step, series: [{ name: "p50", label: "p50", values: of("p50") }, { name: "p95", label: "p95", values: of("p95"), dash: [6, 3] }, { name: "p99", label: "p99", values: of("p99"), dash: [2, 3] }] });
  chart(find("reads"), { title: "Reads", at, marks, window, stack: true, format: count, series: LAYERS.map(([name, label]) => ({ name, label, values: of(name) })) });
  chart(find("loads"), { title: "Loads", at, marks, window, format: count, series: [{ name: "missed", label: "loads", values: of("loads") }, { name: "p95", label: "events", values: of("events"), dash: [6, 3] }] });
}

/** What would change the state, with its figure of now, and who would be told. */
function pages({ thresholds, rules, silence }) {
  const row = (each) => html`<tr data-key="${each.what}"><td data-label="Sign"><a href="${href(each.tab)}">${each.what}</a></td><td data-label="Now">${each.now}</td><td data-label="Look today">${each.warn || "–"}</td><td data-label="Look now">${each.bad || "–"}</td><td data-label="State">${chip(each.level, { ok: "fine", warn: "look today", bad: "look now" }[each.level])}</td></tr>`;
  const silent = silence && silence.until_ms > serverNow();
  const who = rules === null ? "No worker watches: nobody is told of anything while nobody looks."
    : !rules.told ? html`Nobody is told: set <code>ALERT_URL</code> on the worker.`
    : silent ? html`Silent until ${clock(silence.until_ms)}, as ${silence.who} asked.`
    : `A webhook is told of what is ${rules.level === "warn" ? "“look today” or “look now”" : "“look now”"} for ${span(rules.after_ms)}.`;
  const acts = rules?.told ? (silent ? button("Tell again", "alerts/silence", { minutes: 0 }) : button("Silence for 1 h", "alerts/silence", { minutes: 60 })) : "";
  return html`<section class="card" data-key="pages">${head("What would page you", acts)}<p class="soft">${who}</p><div class="table some" tabindex="0" role="group" aria-label="What would change the state"><table><caption class="unseen">What would change the state</caption><thead><tr><th scope="col">Sign</th><th scope="col">Now</th><th scope="col">Look today</th><th scope="col">Look now</th><th scope="col">State</th></tr></thead><tbody>${thresholds.map(row)}</tbody></table></div></section>`;
}
