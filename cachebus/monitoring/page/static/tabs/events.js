// Events: what happens, as it happens; and one event's whole life as a waterfall.

import { query } from "../api.js";
import { html, show } from "../dom.js";
import { ago, button, chip, fact, filter, head, none, scopeLink, table } from "../parts.js";
import { href, route } from "../route.js";
import { clock, count, moment, number, span } from "../words.js";

const KEPT = 200;
const more = (many) => (many ? html`<span class="soft">+${count(many)} more</span>` : "");

export const screen = ({ noun, params }) => (noun ? life(noun) : tail(params));

// -- the tail ---

const happened = [];
let held = false;

function tail(params) {
  return {
    key: "events", every: 3000, path: "events",
    draw: ({ waits }) => html`<section class="card">${head("Events", html`${filter("q", params.q, "channel, key, tag, topic…")}<button type="button" data-act="hold" aria-pressed="${String(held)}">${held ? "Go on" : "Hold"}</button>`, 1)}
<form data-form="look"><input name="id" aria-label="Id or position of an event" placeholder="id or position of an event" autocomplete="off" spellcheck="false"><button>Its life</button></form>
<ol id="tail" tabindex="0" aria-label="What happens, newest first" data-own></ol></section>${shards(waits)}`,
    after: (root) => drawTail(root, params.q ?? ""),
    begin(root) {
      const source = new EventSource("page/api/tail");
      source.onmessage = ({ data }) => { happened.unshift(JSON.parse(data)); happened.length = Math.min(happened.length, KEPT); if (!held) drawTail(root, route().params.q ?? ""); };
      source.addEventListener("gap", () => { happened.unshift({ at_ms: Date.now(), gap: true }); if (!held) drawTail(root, route().params.q ?? ""); });
      source.onopen = () => { happened.length = 0; };
      return () => source.close();
    },
    acts: { hold(_, __, pressed) { held = !held; pressed.ariaPressed = String(held); pressed.textContent = held ? "Go on" : "Hold"; if (!held) drawTail(document.getElementById("main"), route().params.q ?? ""); } },
    forms: { look: ({ id }) => { if (id.trim()) location.hash = href("events", id.trim()); } },
  };
}

const shards = (waits) => (waits ? html`<section class="card">${head("Shards", html`<span class="soft">${number(waits.delayed, "event")} to be published later, ${number(waits.refreshes, "refresh", "refreshes")} wait</span>`)}${table("Shards", [["Shard"], ["Held by", "name"], ["Waiting", "num"], ["To retry", "num"], ["Debounced", "num"], ["Kept", "num"]], waits.shards.map((each) => ({ key: each.shard, kind: each.stored && !each.holder ? "bad" : "", cells: [each.shard, each.holder || chip("bad", "nobody"), count(each.waiting), count(each.retries), count(each.debounced), count(each.stored)] })))}</section>` : "");

function drawTail(root, text) {
  const list = root.querySelector("#tail"), low = text.toLowerCase();
  if (!list) return;
  const shown = happened.filter((each) => !low || JSON.stringify(each).toLowerCase().includes(low)).slice(0, 80);
  show(list, shown.length ? html`${shown.map(happening)}` : html`<li><span></span><span class="soft">${happened.length ? "Nothing that happened is like that." : "Nothing has happened since this page was opened."}</span></li>`);
}

function happening(each) {
  if (each.gap) return html`<li><time>${clock(each.at_ms, true)}</time><span class="soft">something is missing here: more happened than could be shown</span></li>`;
  const events = each.events.map((event) => (event.channel ? html`<a class="event" href="${href("events", event.id)}" title="${event.handlers.join(", ")} ${event.payload}">${event.channel}${event.key ? ` · ${event.key}` : ""}</a>` : html`<a class="event" href="${href("events", event.id)}">event ${event.id}</a>`));
  const others = each.causes.map(({ kind, who, what }) => html`<span class="event">${kind} ${who} ${what}</span>`);
  const scopes = each.scopes.length ? html`→ ${each.scopes.map(scopeLink)}${more(each.more_scopes)}` : "";
  const told = each.told.length ? html`→ ${each.told.map(({ topic, type }) => html`<span class="topic" title="${type}">${topic}</span>`)}${more(each.more_told)}${each.sockets === undefined ? "" : html` <span class="soft">${number(each.sockets, "socket")}</span>`}` : "";
  return html`<li data-key="${each.clock || `${each.at_ms} ${each.events[0]?.id ?? each.told[0]?.topic}`}"><time>${clock(each.at_ms, true)}</time><span class="flow">${events}${more(each.more_events)}${others}${scopes}${told}</span><b>${each.latency_ms === null ? "" : span(each.latency_ms)}</b></li>`;
}

// -- one ---

function life(id) {
  return {
    key: `event ${id}`, every: 3000, path: `event${query({ id })}`,
    draw: (lives) => html`<p class="crumb"><a href="${href("events")}">Events</a> /</p>${lives.length ? lives.map(drawn) : html`<section class="card">${head(id, "", 1)}${none("No event of this id is kept. Handled ones are kept for some minutes (BUS_RETENTION), those that failed among the failures.")}</section>`}`,
  };
}

const STATES = { waiting: ["warn", "waits"], handled: ["ok", "handled"], delayed: ["", "to be published later"], trimmed: ["", "no longer kept"] };

function drawn({ event, steps, fresh_ms, answered }) {
  const times = steps.flatMap(({ from_ms, until_ms }) => [from_ms, until_ms ?? from_ms]).filter(Boolean);
  const from = Math.min(event.published_ms || Infinity, ...times), whole = Math.max(1, Math.max(...times) - from);
  const percent = (ms) => `${((96 * (ms - from)) / whole).toFixed(2)}%`;
  const row = (each, at) => {
    const took = each.until_ms === null ? null : each.until_ms - each.from_ms;
    const wide = took === null ? "2%" : `${Math.max(0.6, (96 * took) / whole).toFixed(2)}%`;
    return html`<li data-key="${at}" class="${each.what.split(" ")[0]}"><span><b>${each.what}</b> ${each.who ? html`<span class="mono">${each.who}</span>` : ""}</span><span><svg role="img" aria-label="${each.what}: ${span(each.from_ms - from)} after publication${took ? `, for ${span(took)}` : ""}"><rect class="track" y="6" width="100%" height="2"/><rect class="part" x="${percent(each.from_ms)}" y="1" width="${wide}" height="12" rx="3"/></svg><span class="soft">+${span(each.from_ms - from)}${took ? `, took ${span(took)}` : ""} · ${each.says}</span></span>${each.names.length ? html`<span class="names">${each.names.slice(0, 30).map(named)}${more(each.names.length - 30 > 0 ? each.names.length - 30 : 0)}</span>` : ""}</li>`;
  };
  const [kind, word] = STATES[event.state] ?? ["", event.state];
  return html`<section class="card">${head(html`<span class="mono">${event.id || event.position}</span>`, html`${chip(kind, word)}${fresh_ms === null ? "" : html`<b>fresh after ${span(fresh_ms)}</b>`}`, 1)}
<dl class="facts">${fact("channel", html`<span class="mono">${event.channel}</span>`)}${event.key ? fact("key", html`<span class="mono">${event.key}</span>`) : ""}${event.position ? fact("position", html`<span class="mono">${event.position}</span>`) : ""}${event.shard >= 0 ? fact("shard", event.shard) : ""}${event.by ? fact("published by", html`<span class="mono">${event.by}</span>`) : ""}${event.published_ms ? fact("published", html`${moment(event.published_ms)} (${ago(event.published_ms)})`) : ""}${event.due_ms ? fact("due", moment(event.due_ms)) : ""}</dl>
<ol class="fall" aria-label="Its life, step by step">${steps.map(row)}</ol>${event.state === "handled" && !steps.some(({ what }) => what === "ran") ? html`<p class="soft">${answered ? "No worker that runs remembers its handlers: each keeps its last 2,000 runs." : "How long its handlers took is asked of the workers, which answer within ten seconds."}</p>` : ""}<details><summary>payload</summary><pre tabindex="0" aria-label="Payload">${event.payload}</pre></details></section>`;
}

function named(name) {
  if (name.startsWith("letter:")) return html`<a href="${href("failures", name.slice(7))}">the letter</a>`;
  if (name.startsWith("topic:")) return html`<a class="topic" href="${href("browsers", "", { topic: name.slice(6) })}">${name.slice(6)}</a>`;
  return scopeLink(name);
}
