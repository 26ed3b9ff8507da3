// Ctrl-K: any view, key, tag, event, letter, user, job, lock or process by a piece of its name.

import { ask, query } from "./api.js";
import { html, show } from "./dom.js";
import { TABS, href } from "./route.js";

const PLACES = {
  view: (name) => href("views", name),
  key: (name) => href("keys", name),
  tag: (name) => href("keys", "", { kind: "tag", name }),
  event: (name) => href("events", name),
  letter: (name) => href("failures", name),
  user: (name) => href("keys", "", { kind: "user", name }),
  job: (name) => href("jobs", name),
  lock: (name) => href("limits", "", { name }),
  process: (name) => href("machine", "", { process: name }),
  tab: (name) => href(TABS.find(([, title]) => title === name)[0]),
};

let found = [], chosen = 0, asked = 0, timer = 0;

export function openSearch(dialog) {
  if (dialog.open) return;
  dialog.shown = null;
  show(dialog, html`<form method="dialog"><input type="search" name="find" role="combobox" aria-expanded="true" aria-controls="found" aria-autocomplete="list" aria-label="Find anything by a piece of its name" placeholder="view, key, tag, event id, user, job, lock, process" autocomplete="off" spellcheck="false"></form><ul id="found" role="listbox" aria-label="What was found"></ul><p class="soft" id="found-hint">Enter opens, ↑ ↓ choose, Esc closes.</p>`);
  const input = dialog.querySelector("input");
  input.value = ""; // the element stays from one search to the next
  dialog.showModal();
  input.focus();
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => look(dialog, input.value), 120); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      chosen = (chosen + (event.key === "ArrowDown" ? 1 : found.length - 1)) % Math.max(1, found.length);
      draw(dialog);
    }
  });
  dialog.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(timer);
    if (dialog.of !== input.value) await look(dialog, input.value);
    if (found[chosen]) leave(dialog, found[chosen]);
  });
  dialog.querySelector("ul").addEventListener("click", (event) => {
    const row = event.target.closest("[data-at]");
    if (row) leave(dialog, found[Number(row.dataset.at)]);
  });
  look(dialog, "");
}

async function look(dialog, text) {
  const mine = ++asked, low = text.trim().toLowerCase();
  const tabs = TABS.filter(([, title]) => title.toLowerCase().includes(low)).map(([, name]) => ({ kind: "tab", name, says: "" }));
  let more = [];
  if (low) {
    try {
      more = (await ask(`find${query({ q: text })}`)).data;
    } catch (failed) {
      more = [];
      dialog.querySelector("#found-hint").textContent = failed.status ? failed.message : "The server of this page does not answer.";
    }
  }
  if (mine !== asked) return;
  found = low ? [...more.filter(({ kind }) => kind !== "tag" && kind !== "user"), ...tabs, ...more.filter(({ kind }) => kind === "tag" || kind === "user")] : tabs;
  chosen = 0;
  dialog.of = text;
  draw(dialog);
}

function draw(dialog) {
  show(dialog.querySelector("ul"), html`${found.map(({ kind, name, says }, at) => html`<li role="option" id="found-${at}" data-at="${at}" aria-selected="${String(at === chosen)}"><small>${kind}</small> <b>${name}</b> <span>${says}</span></li>`)}`);
  const input = dialog.querySelector("input");
  if (found.length) input.setAttribute("aria-activedescendant", `found-${chosen}`);
  else input.removeAttribute("aria-activedescendant");
  dialog.querySelector(`#found-${chosen}`)?.scrollIntoView({ block: "nearest" });
}

function leave(dialog, { kind, name }) {
  dialog.close();
  location.hash = PLACES[kind](name);
}
