// Failures: what went wrong, by handler and reason; all that match are retried or discarded on the server; one is edited.

import { query } from "../api.js";
import { html } from "../dom.js";
import { ago, button, chip, confirmed, fact, filter, head, none, older, shared, signIn, table } from "../parts.js";
import { href } from "../route.js";
import { bytes, count, moment, number, span } from "../words.js";

const NAMES = ["kind", "channel", "handler", "reason"];
const editing = new Set();

export function screen({ noun, params }) {
  const text = noun || params.q || "";
  const wanted = { ...Object.fromEntries(NAMES.map((name) => [name, params[name] ?? ""])), text };
  const chosen = Object.values(wanted).some(Boolean);
  return {
    key: `failures ${noun}`, every: 3000, path: `failures${query(wanted)}`,
    draw: (data) => html`${noun ? html`<p class="crumb"><a href="${href("failures")}">Failures</a> /</p>` : groups(data, wanted, params)}${letters(data, wanted, chosen, noun)}${noun ? "" : retries(data)}`,
    acts: {
      edit: ({ id }) => { editing.add(id); dispatchEvent(new HashChangeEvent("hashchange")); },
      cancel: ({ id }) => { editing.delete(id); dispatchEvent(new HashChangeEvent("hashchange")); },
      async discard({ body, many }, act) {
        if (await confirmed(`Discard ${number(Number(many), "dead letter")}?`, "Their handlers will not handle the events, and nothing keeps them.", "Discard")) await act("letters/discard", JSON.parse(body));
      },
    },
    forms: {
      async edit({ id, payload }, act) {
        JSON.parse(payload); // says where it is no JSON
        if (await act("letters/edit", { id, payload })) editing.delete(id);
        dispatchEvent(new HashChangeEvent("hashchange"));
      },
    },
  };
}

const match = (wanted) => Object.fromEntries(Object.entries(wanted).filter(([, value]) => value));
const chosenGroup = (group, wanted) => NAMES.every((name) => wanted[name] === group[name]);

function groups({ total, groups: found, more_groups }, wanted, params) {
  const columns = [["Handler", "name"], ["Reason", "why"], ["Letters", "num"], ["First", "num less"], ["Last", "num"], ["Since release", "less"], ["", "acts"]];
  const row = ({ group, release }) => {
    const same = Object.fromEntries(NAMES.map((name) => [name, group[name]]));
    const body = { match: match(same) };
    return { key: JSON.stringify(same), kind: chosenGroup(group, wanted) ? "warn" : "", cells: [
      html`<a href="${href("failures", "", same)}"><span class="mono">${group.handler.split(".").at(-1) || "no handler"}</span></a><br><small>${group.channel || "no channel"}</small>`,
      html`<span>${chip(group.kind === "gap" ? "warn" : "bad", group.kind)} ${group.reason}</span>`,
      count(group.count), ago(group.first_ms), ago(group.last_ms), release ? html`<span class="mono">${release.slice(0, 12)}</span>` : "–",
      html`${group.kind === "gap" ? "" : button(`Retry ${count(group.count)}`, "letters/retry", body)}${discard(body, group.count)}`,
    ] };
  };
  return html`<section class="card">${head("Failures", filter("q", params.q, "handler, channel, reason, id…"), 1)}<p class="soft">${number(total, "dead letter")} in ${number(found.length + more_groups, "group")}, by handler and reason.</p>${found.length ? table("Groups of dead letters", columns, found.map(row)) : none("None: every event was handled.")}${older(more_groups)}</section>`;
}

const discard = (body, many) => (shared.me.admin ? html`<button type="button" data-act="discard" data-body="${JSON.stringify(body)}" data-many="${many}">Discard</button>` : "");

function letters({ letters: found, matching }, wanted, chosen, noun) {
  if (!found.length) return chosen ? html`<section class="card">${none(noun ? `There is no dead letter ${noun}: it was handled, discarded, or is being tried.` : "No dead letter is like that.")}</section>` : "";
  const body = { match: match(wanted) };
  const all = chosen && matching > 1 ? html`${button(`Retry all ${count(matching)}`, "letters/retry", body)}${discard(body, matching)}<button type="button" data-act="clear" data-names="${[...NAMES, "q"].join(" ")}">all letters</button>` : "";
  return html`<section class="card" id="letters">${head(chosen ? `${number(matching, "letter")} like that` : "The newest letters", all)}${signIn("retry, edit or discard")}${found.map((each) => letter(each, noun))}${older(matching - found.length)}</section>`;
}

function letter(each, noun) {
  const open = editing.has(each.letter_id);
  const acts = html`${each.replayable ? button("Retry", "letters/retry", { ids: [each.letter_id] }) : ""}${each.replayable && each.text && each.kind !== "refresh" && shared.me.admin && !open ? html`<button type="button" data-act="edit" data-id="${each.letter_id}">Edit and retry</button>` : ""}${shared.me.admin ? discard({ ids: [each.letter_id] }, 1) : ""}`;
  const edit = html`<form data-form="edit" data-key="edit"><input type="hidden" name="id" value="${each.letter_id}"><label for="payload-${each.letter_id}">Payload, JSON</label><textarea id="payload-${each.letter_id}" name="payload" spellcheck="false">${each.payload}</textarea><div class="acts"><button>Retry with this payload</button><button type="button" data-act="cancel" data-id="${each.letter_id}">Cancel</button></div></form>`;
  return html`<details data-key="${each.letter_id}" ${noun || open ? "open" : ""}><summary>${chip(each.kind === "gap" ? "warn" : "bad", each.kind)} <b class="mono">${each.channel || "–"}</b> <span class="soft">${ago(each.at_ms)}</span> <span class="why">${each.reason}</span></summary>
<dl class="facts">${fact("handler", html`<span class="mono">${each.handler || "–"}</span>`)}${fact("attempts", count(each.attempts))}${fact("event", each.id || each.position ? html`<a class="mono" href="${href("events", each.id || each.position)}">${each.id || each.position}</a>` : "–")}${each.key ? fact("key", html`<span class="mono">${each.key}</span>`) : ""}${fact("failed", moment(each.at_ms))}${fact("letter", html`<a class="mono" href="${href("failures", each.letter_id)}">${each.letter_id}</a>`)}${fact("payload", bytes(each.payload_bytes))}</dl>
${open ? edit : html`<pre tabindex="0" aria-label="Payload">${each.payload}</pre>`}${each.detail ? html`<details><summary>traceback</summary><pre tabindex="0" aria-label="Traceback">${each.detail}</pre></details>` : ""}<div class="acts">${acts}</div></details>`;
}

function retries({ retries: found, more_retries }) {
  const row = (each) => ({ key: `${each.position}/${each.handler}`, cells: [html`<span class="mono">${each.handler.split(".").at(-1)}</span><br><small>${each.channel}</small>`, html`<a class="mono" href="${href("events", each.id || each.position)}">${each.id || each.position}</a>`, each.key || "–", each.shard, each.due_in_ms ? `in ${span(each.due_in_ms)}` : "now"] });
  return html`<section class="card">${head("Retries that wait", html`<span class="soft">failed, and are tried again by themselves</span>`)}${found.length ? table("Retries", [["Handler", "name"], ["Event"], ["Key"], ["Shard", "num"], ["Due", "num"]], found.map(row)) : none("None.")}${older(more_retries)}</section>`;
}
