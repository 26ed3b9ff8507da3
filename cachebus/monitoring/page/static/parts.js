// Pieces that several tabs are made of, and what they all know.

import { html, show } from "./dom.js";
import { href } from "./route.js";
import { count, scope, share, span } from "./words.js";

/** What the server last said of whoever looks. */
export const shared = { me: { name: "", admin: false }, can: [], letters: 0 };

let skew = 0;
export const setTime = (at_ms) => { skew = at_ms - Date.now(); };
export const serverNow = () => Date.now() + skew;
export const ago = (ms) => { const past = serverNow() - ms; return past < 1000 ? "now" : `${span(past)} ago`; };
export const due = (ms) => (ms <= serverNow() ? "now" : `in ${span(ms - serverNow())}`);

const $ = (id) => document.getElementById(id);
let toasting = 0;
export function toast(text, bad = false) {
  $("toast").textContent = text;
  $("toast").className = bad ? "bad" : "";
  clearTimeout(toasting);
  toasting = setTimeout(() => { $("toast").textContent = ""; }, bad ? 12_000 : 8000);
}

/** Ask before something is done; Cancel has the focus. */
export function confirmed(title, text, yes) {
  const dialog = $("ask"), [no, button] = dialog.querySelectorAll("button");
  show($("ask-title"), html`${title}`);
  show($("ask-text"), html`${text}`);
  button.textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  no.focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

export const none = (text) => html`<p class="none">${text}</p>`;
export const chip = (kind, text, title = "") => html`<span class="chip ${kind}" ${title ? html`title="${title}"` : ""}>${{ ok: "✓ ", warn: "▲ ", bad: "✕ " }[kind] ?? ""}${text}</span>`;

/** A button that an admin may press. *ask*: {title, text, yes}, where it is to be asked first. */
export function button(label, verb, body, ask = {}, kind = "") {
  if (!shared.me.admin || !shared.can.includes(verb)) return "";
  return html`<button type="button" class="${kind}" data-act="do" data-verb="${verb}" data-body="${JSON.stringify(body)}" ${ask.title ? html`data-title="${ask.title}" data-text="${ask.text}" data-yes="${ask.yes}"` : ""}>${label}</button>`;
}

/** Said where buttons would be. */
export const signIn = (what) => (shared.me.admin ? "" : html`<p class="soft">Sign in as an admin to ${what}.</p>`);

/** A table that becomes a list where its place is narrow. *columns*: [title, kind, key to sort by]. */
export function table(label, columns, rows, { sort = "", more = "" } = {}) {
  const order = (key) => (!key || sort.replace("-", "") !== key ? "" : html`aria-sort="${sort[0] === "-" ? "descending" : "ascending"}"`);
  const head = ([title, kind = "", key]) => html`<th scope="col" class="${kind}" ${order(key)}>${key ? html`<button type="button" data-act="sort" data-by="${key}">${title}</button>` : title || html`<span class="unseen">Actions</span>`}</th>`;
  const cell = (content, at) => html`<td class="${columns[at][1] ?? ""}" data-label="${columns[at][0]}">${content}</td>`;
  return html`<div class="table ${columns.length < 4 ? "few" : columns.length < 6 ? "some" : "many"}" tabindex="0" role="group" aria-label="${label}"><table><caption class="unseen">${label}</caption><thead><tr>${columns.map(head)}</tr></thead><tbody>${rows.map(({ key, cells, kind = "" }) => html`<tr data-key="${key}" class="${kind}">${cells.map(cell)}</tr>`)}</tbody></table></div>${more}`;
}

/** Sort by what the address says: "-name" is descending. */
export function sorted(rows, order) {
  const key = order.replace(/^-/, ""), sign = order[0] === "-" ? -1 : 1;
  const value = (row) => row[key] ?? -Infinity;
  return [...rows].sort((one, other) => sign * (value(one) > value(other) ? 1 : value(one) < value(other) ? -1 : 0));
}

export const LAYERS = [["memory", "memory"], ["redis", "Redis"], ["joined", "joined"], ["missed", "missed"]];
const fill = (layer) => (layer === "memory" ? html`class="c-memory"` : html`class="c-${layer}" fill="url(#p-${layer})"`);
export const swatch = (layer) => html`<svg class="swatch" width="12" height="12" aria-hidden="true"><rect width="12" height="12" rx="3" ${fill(layer)}/></svg>`;

/** A bar of how reads were answered, told apart by colour and by pattern. */
export function bar(counts, width = 110, height = 10) {
  const whole = LAYERS.reduce((sum, [layer]) => sum + counts[layer], 0);
  const said = whole ? LAYERS.map(([layer, name]) => `${name} ${share(counts[layer], whole)}`).join(", ") : "no reads";
  let x = 0;
  const parts = whole ? LAYERS.map(([layer]) => {
    const part = (width * counts[layer]) / whole, from = x;
    x += part;
    return part > 0 ? html`<rect x="${from.toFixed(2)}" width="${Math.max(0.5, part - 1).toFixed(2)}" height="${height}" ${fill(layer)}/>` : "";
  }) : "";
  return html`<svg class="bar" width="${width}" height="${height}" role="img" aria-label="${said}"><title>${said}</title><rect class="track" width="${width}" height="${height}"/>${parts}</svg>`;
}

/** A small line of shares between 0 and 1; a gap where nobody read. */
export function sparkline(values, label, width = 96, height = 22) {
  const x = (at) => ((width - 2) * at) / Math.max(1, values.length - 1) + 1, y = (value) => height - 2 - (height - 4) * value;
  let path = "", pen = false;
  values.forEach((value, at) => {
    if (value === null) { pen = false; return; }
    const alone = !pen && (values[at + 1] ?? null) === null;
    path += `${pen ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}${alone ? "h1" : ""}`;
    pen = true;
  });
  const last = values.findLast((value) => value !== null);
  const said = last === undefined ? `${label}: nobody read` : `${label}: from ${share(values.find((value) => value !== null))} to ${share(last)}`;
  return html`<svg class="spark" width="${width}" height="${height}" role="img" aria-label="${said}"><title>${said}</title><path d="${path}"/></svg>`;
}

/** A share of something that ends, with its figures. */
export function meter(label, part, whole, text, warn = 0.8, bad = 0.95) {
  const used = whole ? Math.min(1, part / whole) : 0, level = used > bad ? "bad" : used > warn ? "warn" : "";
  return html`<div class="meter"><span>${label}</span><span>${text}</span><svg width="100%" height="8" role="img" aria-label="${label}: ${text}"><rect class="track" width="100%" height="8" rx="4"/><rect class="used ${level}" width="${(100 * used).toFixed(1)}%" height="8" rx="4"/></svg></div>`;
}

/** What a scope is, as a link to its entries. */
export function scopeLink(name) {
  const [kind, text] = scope(name);
  if (!kind || kind === "everything") return html`<span class="mono">${kind || name}</span>`;
  const address = kind === "key" ? href("keys", text) : href("keys", "", { kind, name: text });
  return html`<a class="scope ${kind}" href="${address}"><small>${kind}</small> ${text}</a>`;
}

/** Choices of which one is chosen, in the address. */
export const choice = (label, name, values, chosen) => html`<div class="choice" role="group" aria-label="${label}">${values.map(([value, title]) => html`<button type="button" data-act="set" data-name="${name}" data-value="${value}" aria-pressed="${String(value === chosen)}">${title}</button>`)}</div>`;

export const filter = (name, value, placeholder) => html`<input type="search" name="${name}" value="${value ?? ""}" data-filter placeholder="${placeholder}" aria-label="${placeholder}" autocomplete="off" spellcheck="false">`;

export const head = (title, rest = "", level = 2) => html`<div class="head">${level === 1 ? html`<h1>${title}</h1>` : html`<h2>${title}</h2>`}${rest}</div>`;
export const fact = (name, value) => html`<div><dt>${name}</dt> <dd>${value}</dd></div>`;
export const older = (many) => (many > 0 ? html`<p class="none">${count(many)} more are left out.</p>` : "");
