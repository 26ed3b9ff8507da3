// Keys: entries by prefix, tag or user; one entry with what made it old; refresh, purge, forget a user.

import { ACT_MS, ask, query } from "../api.js";
import { html, show } from "../dom.js";
import { ago, button, chip, due, fact, head, none, older, scopeLink, signIn, table, toast } from "../parts.js";
import { href } from "../route.js";
import { bytes, count, moment, number, span } from "../words.js";

const KINDS = [["prefix", "prefix"], ["tag", "tag"], ["user", "user"], ["key", "key"]];

export const screen = ({ noun, params }) => (noun ? entry(noun) : search(params));

function search({ kind = "prefix", name = "" }) {
  const form = html`<form data-form="look"><select name="kind" aria-label="Kind of name">${KINDS.map(([value, title]) => html`<option value="${value}" ${value === kind ? "selected" : ""}>${title}</option>`)}</select><input name="name" value="${name}" aria-label="Name" placeholder="${{ prefix: "orders:", tag: "user:7", user: "7", key: "orders:7" }[kind]}" autocomplete="off" spellcheck="false"><button>Look</button></form>`;
  let receipt = null, looked = false;
  return {
    key: `keys ${kind} ${name}`, every: 30_000, alone: !name, path: name ? `keys${query({ kind, name })}` : "state",
    draw(data) {
      const shell = (rest) => html`<section class="card">${head("Keys", "", 1)}${form}${rest}</section>`;
      if (!data) return shell(none("What is stored under a name, how old it is, and whether it may still be served."));
      const purge = button(`Purge ${kind} ${name}`, "purge", { kind, name }, { title: `Purge ${kind} ${name}?`, text: `${number(data.matching, "stored entry", "stored entries")} will be unreadable in every process. The next read of each loads it again.`, yes: "Purge" }, "danger");
      const row = (each) => ({ key: each.key, cells: [html`<a class="mono" href="${href("keys", each.key)}">${each.key}</a>`, each.valid ? chip("ok", "valid") : chip("warn", "made old"), each.tags.map((tag) => html`${scopeLink(`t:${tag}`)} `), ago(Date.now() - each.born_ms_ago), bytes(each.stored_bytes)] });
      return html`${shell(html`<p class="soft">${number(data.matching, "entry", "entries")} of ${count(data.looked_at)} looked at${data.complete ? "" : ", where the walk ended"}.</p><div class="acts">${purge}</div>${signIn("purge or forget")}${data.entries.length ? table("Entries", [["Key", "name"], ["State"], ["Tags"], ["Loaded", "num"], ["Stored", "num"]], data.entries.map(row)) : none("Nothing is stored under that.")}${older(data.matching - data.entries.length)}`)}${kind === "user" ? forget(name) : ""}`;
    },
    done(verb, said) { receipt = verb === "users/forget" ? said.receipt : receipt; },
    after(root) {
      const place = root.querySelector("#kept");
      if (!place) return;
      if (receipt) return show(place, html`${kept(receipt)}<p class="soft">${chip("ok", "forgotten")} at ${moment(receipt.at_ms)}, clock <span class="mono">${receipt.clock}</span>. Keep this receipt.</p>`);
      if (looked) return; // a walk over all there is: once
      looked = true;
      ask(`user${query({ user: name })}`, undefined, ACT_MS).then(({ data }) => { if (!receipt) show(place, kept(data)); }, (failed) => toast(failed.message, true));
    },
    forms: { look: ({ kind: chosen, name: text }) => { location.hash = chosen === "key" ? href("keys", text) : href("keys", "", { kind: chosen, name: text }); } },
  };
}

const forget = (user) => html`<section class="card">${head(`What is kept of user ${user}`, html`<a href="${href("browsers", "", { user })}">sockets and sessions</a>${button("Forget", "users/forget", { user }, { title: `Forget user ${user}?`, text: "Cached values, sessions, dead letters, limits, popularity and handled events of this user are deleted, and they are signed out. Nothing brings them back.", yes: "Forget" }, "danger")}`)}<div id="kept" data-own><p class="none">looking…</p></div></section>`;

const kept = (found) => html`<dl class="facts">${["entries", "sessions", "letters", "limits", "reads", "events"].map((name) => fact({ reads: "reads noted", letters: "dead letters", limits: "rate limits", entries: "cached values", events: "handled events" }[name] ?? name, count(found[name])))}</dl>${Object.keys(found.left).length ? html`<h2 class="sub">Stays for a while</h2>` : ""}${Object.entries(found.left).map(([what, many]) => html`<p class="soft">${count(many)} × ${what}</p>`)}`;

// -- one ---

function entry(name) {
  return {
    key: `key ${name}`, every: 3000, path: `key${query({ key: name })}`,
    draw: ({ copies, refreshable, views, memory }) => html`<p class="crumb"><a href="${href("keys")}">Keys</a> /</p><section class="card">${head(html`<span class="mono">${name}</span>`, html`${button(refreshable ? "Refresh" : "Make old", "keys/refresh", { key: name })}${button("Purge", "purge", { kind: "key", name }, { title: `Purge key ${name}?`, text: "Its next read loads it again.", yes: "Purge" }, "danger")}`, 1)}
<p class="soft">read by ${views.length ? views.map((view) => html`<a class="mono" href="${href("views", view)}">${view}</a> `) : "no view that this process knows"}</p>${copies.length ? copies.map(copy) : none("Nothing is stored under this key in Redis.")}</section>${inMemory(memory)}`,
  };
}

/** Who holds it: processes answer with their next report, each of them within ten seconds. */
function inMemory(told) {
  const rows = told.flatMap(({ process, at_us, told: copies }) => copies.map((each) => ({ key: `${process} ${each.view}`, cells: [html`<a class="mono" href="${href("machine", "", { process })}">${process}</a>`, each.valid ? (each.fresh_ms < 0 ? chip("warn", "stale") : chip("ok", "valid")) : chip("warn", "made old"), ago(at_us / 1000 - each.age_ms), due(at_us / 1000 + each.fresh_ms), each.read ? "yes" : "no", ago(at_us / 1000)] })));
  const said = told.length ? `${number(rows.length, "copy", "copies")}; ${number(told.length, "process", "processes")} answered` : "asked; each process answers within ten seconds";
  return html`<section class="card">${head("In memory", html`<span class="soft" role="status">${said}</span>`)}${rows.length ? table("In memory", [["Process", "name"], ["State"], ["Loaded", "num"], ["Stale", "num"], ["Read since", "num"], ["As of", "num"]], rows) : none(told.length ? "No process that answered holds it in memory." : "No answer yet. Processes with CACHE_REPORT=false or CACHE_QUIET answer nothing.")}</section>`;
}

function copy(each, at) {
  const state = each.valid ? (each.fresh_ms < 0 ? chip("warn", "stale, within its window") : chip("ok", "valid")) : chip("bad", "is not served");
  const old = each.made_old_by.map(({ scope, ms_ago, causes, events }) => html`<div>${scopeLink(scope)} ${span(ms_ago)} ago, by ${causes.length ? causes.map((cause) => html`<b>${cause}</b> `) : html`<span class="soft">somebody: of a key that is known for two minutes, of ${each.views.length ? html`<a class="mono" href="${href("views", each.views[0])}">its view</a>` : "a view"} for 24 h</span>`}${events.map((id) => html`<a href="${href("events", id)}">its life</a> `)}</div>`);
  return html`<div data-key="${at}"><dl class="sheet">${fact("state", state)}${old.length ? fact("made old by", html`${old}`) : ""}${each.loaded_for ? fact("loaded", `${span(each.age_ms)} ago, in ${span(each.load_ms)}, ${each.loaded_for}`) : fact("set", `${span(each.age_ms)} ago`)}${each.loaded_ahead ? fact("expected", each.loaded_ahead) : ""}${fact("fresh for", each.fresh_ms > 0 ? `${span(each.fresh_ms)} more` : `ended ${span(-each.fresh_ms)} ago`)}${fact("kept for", `${span(each.left_ms)} more`)}${fact("tags", each.tags.length ? html`${each.tags.map((tag) => html`${scopeLink(`t:${tag}`)} `)}` : "none")}${fact("size", `${bytes(each.raw_bytes)} → ${bytes(each.stored_bytes)}`)}${each.views.length ? fact("type of", html`<span class="mono">${each.views.join(", ")}</span>`) : fact("type of", "cache.set()")}</dl><pre tabindex="0" aria-label="Value">${each.value}</pre>${each.cut ? html`<p class="soft">cut here</p>` : ""}</div>`;
}
