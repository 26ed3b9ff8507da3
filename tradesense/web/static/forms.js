// @ts-check
/** What people do: trade, import, change settings. Each says how it went; the figures change when the message comes. */

import { dollars, number } from "./format.js";
import { at, say } from "./page.js";
import { NotSignedIn, Source, net, refresh } from "./sources.js";
import { OF_TRADES, SHAPES, look, looked } from "./tiles.js";

/** How long to wait for a message before looking anyway: the worker may be busy, or starting. */
const PATIENCE_MS = 1500;
const ZONES = ["America/New_York", "Europe/Berlin", "Asia/Tokyo", "Australia/Sydney", "UTC", "America/Los_Angeles"];

/** What this window did last, and when; the message that answers it says how long it took. */
const mine = { since: 0, waiting: 0, what: "" };

/** @param {string} method @param {string} path @param {any} body */
async function send(method, path, body) {
  const answer = await net.fetch(path, { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  if (answer.status === 401) throw new NotSignedIn();
  if (!answer.ok) throw new Error(await why(answer));
}

/** @param {Response} answer */
export async function why(answer) {
  const problem = await answer.json().catch(() => ({}));
  return problem.detail ?? problem.title ?? `no success: ${answer.status}`;
}

/** A change begins: its message will be of this type. @param {string} what */
function begin(what) {
  clearTimeout(mine.waiting);
  Object.assign(mine, { since: performance.now(), what });
}

/** The change is made: look without its message where that does not come. @param {string[]} names */
function expect(...names) {
  if (mine.since) mine.waiting = setTimeout(() => refresh(...names), PATIENCE_MS);
}

/** The change was not made, or its message is here. */
function over() {
  clearTimeout(mine.waiting);
  mine.since = 0;
}

/** The message came and what it changed is shown. @param {string} type */
export function seen(type) {
  if (!mine.since || !type.startsWith(mine.what)) return null;
  const ms = performance.now() - mine.since;
  over();
  return ms;
}

// -- a trade ------------------------------------------------------------------------------------------------------------

const trade = at("trade");

function total() {
  const { side, quantity, price } = trade.elements;
  const amount = Number(quantity.value) * Number(price.value);
  at("trade-verb").textContent = side.value === "buy" ? "Buy" : "Sell";
  at("trade-total").textContent = Number.isFinite(amount) && amount > 0 ? `for ${dollars(amount * 100)}` : "";
}

trade.addEventListener("input", () => {
  for (const field of trade.elements) field.removeAttribute("aria-invalid");
  total();
});
trade.elements.symbol.addEventListener("change", () => look(trade.elements.symbol.value));
document.addEventListener("price", (event) => {
  trade.elements.price.value = /** @type {CustomEvent} */ (event).detail.toFixed(2);
  total();
});
trade.addEventListener("submit", async (/** @type {Event} */ event) => {
  event.preventDefault();
  const { side, symbol, quantity, price } = trade.elements;
  const button = trade.querySelector("button");
  button.disabled = true;
  try {
    begin("trade.");
    await send("POST", "/api/trades", { side: side.value, symbol: symbol.value, quantity: Number(quantity.value), price: price.value });
    expect(...OF_TRADES);
    say("trade-said", `${side.value === "buy" ? "Bought" : "Sold"} ${number(Number(quantity.value))} ${symbol.value} at ${price.value}.`, "good");
  } catch (problem) {
    over();
    if (problem instanceof NotSignedIn) return net.lost();
    const text = problem instanceof TypeError ? "The application does not answer; nothing was recorded." : /** @type {Error} */ (problem).message;
    trade.elements[text.split(":")[0]]?.setAttribute?.("aria-invalid", "true");
    say("trade-said", text, "bad");
  } finally {
    button.disabled = false;
  }
});

// -- an import ----------------------------------------------------------------------------------------------------------

const bar = at("import-progress");

/** @param {Blob | string} file */
async function importFile(file) {
  bar.removeAttribute("value");
  say("import-said", "Checking…");
  try {
    begin("trade.import_completed");
    const answer = await net.fetch("/api/imports", { method: "POST", body: file, headers: { "Content-Type": "text/csv" } });
    if (answer.status === 401) throw new NotSignedIn();
    if (!answer.ok) throw new Error(`Refused, nothing was imported: ${await refusals(answer)}`);
    await steps(answer);
  } catch (problem) {
    over();
    bar.value = 0;
    if (problem instanceof NotSignedIn) return net.lost();
    say("import-said", problem instanceof TypeError ? "The application went away. All of it was imported, or nothing: choose the file again, it is never imported twice." : /** @type {Error} */ (problem).message, "bad");
  }
}

/** @param {Response} answer */
async function refusals(answer) {
  const { detail, title, problems = [] } = await answer.json().catch(() => ({}));
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : "";
  return `${detail ?? title ?? answer.status}${more}`;
}

/** Follow an import, line by line. @param {Response} answer */
async function steps(answer) {
  const reader = /** @type {ReadableStream} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let ended = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = /** @type {string} */ (lines.pop());
    for (const line of lines) ended = step(JSON.parse(line)) || ended;
  }
  if (!ended) throw new TypeError("it ended before it was done");
}

/** Show a step; whether it was the last. @param {any} step */
function step(step) {
  if (step.checked) say("import-said", `${number(step.checked)} rows checked. Writing…`);
  if (step.written) bar.value = step.written / step.of;
  if (step.failed) throw new Error(step.failed);
  if (!step.imported) return false;
  net.heard(step.fresh_after);
  expect(...OF_TRADES);
  bar.value = 1;
  say("import-said", `${number(step.imported)} trades imported, with one message.`, "good");
  return true;
}

at("file").addEventListener("change", () => {
  if (at("file").files[0]) importFile(at("file").files[0]);
  at("file").value = "";
});
for (const [event, over] of Object.entries({ dragover: true, dragleave: false, drop: false })) {
  at("drop").addEventListener(event, (/** @type {DragEvent} */ drag) => {
    drag.preventDefault();
    at("drop").classList.toggle("over", over);
    if (event === "drop" && drag.dataTransfer?.files[0]) importFile(drag.dataTransfer.files[0]);
  });
}
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => importFile(example(/** @type {HTMLElement} */ (button).dataset.example === "bad")));
}

/** Trades at real closes of the symbol that is shown, in small lots. @param {boolean} bad */
function example(bad) {
  const bars = Source.all.get("market")?.body?.bars ?? [];
  const rows = Array.from({ length: 5000 }, (_, index) => {
    const day = bars[index % bars.length];
    const side = Math.random() < 0.5 ? "buy" : "sell";
    const amount = bad && index === 16 ? "a lot" : day.close.toFixed(2);
    return `${looked.symbol},${side},${1 + Math.floor(Math.random() * 9)},${amount},${day.day}T15:30:00-05:00`;
  });
  return ["symbol,side,quantity,price,at", ...rows].join("\n");
}

// -- settings -----------------------------------------------------------------------------------------------------------

const settings = at("settings");
settings.elements.time_zone.replaceChildren(...ZONES.map((zone) => new Option(zone)));
settings.addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
settings.addEventListener("change", (/** @type {Event} */ event) => {
  const { name, value } = /** @type {HTMLInputElement} */ (event.target);
  change({ [name]: name === "risk_free_rate" ? Number(value) / 100 : value });
});
at("theme").addEventListener("click", () => change({ theme: Source.all.get("settings")?.body?.theme === "dark" ? "light" : "dark" }));

/** @param {Record<string, any>} changes */
async function change(changes) {
  try {
    begin("settings.");
    await send("PATCH", "/api/settings", changes);
    const again = new Set(Object.keys(changes).flatMap((name) => SHAPES[/** @type {keyof typeof SHAPES} */ (name)]));
    expect("settings", ...again);
    const stay = ["portfolio", "analytics", "risk", "prices"].filter((name) => !again.has(name));
    say("settings-said", `Changed, in every window. Read again: ${["settings", ...again].join(", ")}. As they were: ${stay.join(", ")}.`, "good");
  } catch (problem) {
    over();
    if (problem instanceof NotSignedIn) return net.lost();
    say("settings-said", problem instanceof TypeError ? "The application does not answer; nothing was changed." : /** @type {Error} */ (problem).message, "bad");
    refresh("settings");
  }
}
