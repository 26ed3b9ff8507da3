// The view layer: markup in which everything put in is escaped, and a page that changes only where the markup did.

class Markup { constructor(text) { this.text = text; } toString() { return this.text; } }

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

/** Control characters, and those that turn text around, as what they are: nobody is shown another name than there is. */
const visible = (letter) => (letter < " " ? String.fromCharCode(0x2400 + letter.charCodeAt()) : `⟨${letter.charCodeAt().toString(16).padStart(4, "0")}⟩`);

const plain = (value) =>
  value instanceof Markup ? value.text
  : Array.isArray(value) ? value.map(plain).join("")
  : value === null || value === undefined || typeof value === "boolean" ? ""
  : String(value).replace(UNSEEN, visible).replace(/[&<>"']/g, (letter) => ENTITIES[letter]);

export const html = (parts, ...values) => new Markup(parts.reduce((text, part, at) => text + plain(values[at - 1]) + part));

/**
 * Make *target* contain *markup*. Focus, selection, what somebody has typed, and open details stay. Elements with
 * `data-key` are moved, not made anew; what is inside of one with `data-own` belongs to whoever put it there.
 */
export function show(target, markup) {
  const text = String(markup);
  if (target.shown === text) return;
  target.shown = text;
  const wanted = document.createElement("template");
  wanted.innerHTML = text;
  match(target, wanted.content);
}

const key = (node) => node?.dataset?.key;
const alike = (one, other) => one?.nodeName === other.nodeName && key(one) === key(other);

function match(target, wanted) {
  const keyed = new Map([...target.children].filter(key).map((child) => [key(child), child]));
  let at = target.firstChild;
  for (const node of [...wanted.childNodes]) {
    const old = key(node) === undefined ? at : keyed.get(key(node));
    if (!old || !alike(old, node)) {
      target.insertBefore(node, at);
      continue;
    }
    if (old === at) at = at.nextSibling;
    else target.insertBefore(old, at);
    update(old, node);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function update(old, node) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!node.hasAttribute(name) && name !== "open" && name !== "style") old.removeAttribute(name);
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value && name !== "open") old.setAttribute(name, value);
  if (old.matches("input, textarea, select, [data-own]")) return;
  match(old, node);
}
