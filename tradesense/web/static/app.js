// @ts-check
/** The page: who is signed in, what is heard from the gateway, and what is said while something is down. */

import { clock, took } from "./format.js";
import { seen } from "./forms.js";
import { at, made } from "./page.js";
import { NotSignedIn, Source, ask, cacheable, chip, mode, net } from "./sources.js";
import { askWho, signIn } from "./sign_in.js";
import { changed, looked } from "./tiles.js";

const POLL_MS = 3000;
const AGAIN_MS = 2000;
const QUIET_MS = 400;
const MOST_LINES = 200;
const STATES = { open: "Live", connecting: "Connecting", waiting: "Asking, not told", away: "Redis is down", refused: "Signed out", closed: "Closed" };

/** Whether somebody is signed in, and the tiles are asked for. */
let begun = false;
/** Whether Redis answers the application; null while the application itself does not. @type {boolean | null} */
let redis = true;

net.lost = () => askWho();

async function begin() {
  const wanted = Number(new URLSearchParams(location.hash.slice(1)).get("user"));
  history.replaceState(null, "", location.pathname);
  for (;;) {
    try {
      const { body } = await ask("/api/me");
      const { body: status } = await ask("/api/status");
      redis = status.redis;
      begun = true;
      Source.answered = measureSoon;
      Source.all.forEach((source) => source.refresh());
      return await listen(status.gateway, body.user_id);
    } catch (problem) {
      if (problem instanceof NotSignedIn) {
        if (wanted && (await signIn(wanted))) continue;
        return askWho();
      }
      redis = null;
      say();
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
}

// -- what is heard ------------------------------------------------------------------------------------------------------

/** @param {string} gateway @param {number} userId */
async function listen(gateway, userId) {
  const { connect } = await client(gateway);
  const live = connect({
    url: gateway,
    topics: [`user:${userId}`, `market:${looked.symbol}`],
    ticket: async () => {
      const answer = await fetch("/api/ticket", { method: "POST" });
      if (answer.status === 401) net.lost();
      if (!answer.ok) throw new Error("no ticket");
      return (await answer.json()).ticket;
    },
    onMessage: heard,
    onReset: () => Source.all.forEach((source) => source.refresh()),
    onState: show,
  });
  net.fetch = (url, init) => live.fetch(url, init);
  net.heard = (clock) => live.heard(clock);
  document.addEventListener("look", (event) => {
    const { before, now } = /** @type {CustomEvent} */ (event).detail;
    live.unsubscribe(`market:${before}`);
    live.subscribe(`market:${now}`);
  });
  Object.assign(globalThis, { live }); // for whoever looks from the console
}

/** The gateway's own script; a browser remembers that a URL failed, hence the number. @param {string} gateway */
async function client(gateway) {
  for (let tries = 0; ; tries++) {
    try {
      const url = new URL("client.js", gateway);
      if (tries) url.searchParams.set("try", String(tries));
      return await import(url.href);
    } catch {
      show("waiting");
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
}

/** @param {any} message */
async function heard(message) {
  const began = performance.now();
  const line = made("li", {}, [
    made("time", { textContent: clock(message.ts) }), made("b", { textContent: message.type }),
    made("span", { textContent: message.data?.symbol ?? message.data?.changed?.join(", ") ?? "" }),
    made("span", { className: "took", textContent: "…" }),
  ]);
  line.dataset.id = message.id;
  if (at("log").firstChild?.className === "note") at("log").replaceChildren();
  at("log").prepend(line);
  while (at("log").children.length > MOST_LINES) at("log").lastChild.remove();
  await changed(message);
  const sinceClick = seen(message.type);
  line.lastChild.textContent = sinceClick === null ? `new here in ${took(performance.now() - began)}` : `${took(sinceClick)} after the click`;
}

// -- what is said -------------------------------------------------------------------------------------------------------

/** @param {string} state */
function show(state) {
  at("state").dataset.state = state;
  at("state").textContent = STATES[/** @type {keyof typeof STATES} */ (state)] ?? state;
  say();
}

/** Say what is down, and what that means for whoever looks. */
function say() {
  const state = at("state").dataset.state;
  const failing = [...Source.all.values()].find((source) => source.failing);
  let text = "";
  if (redis === null) text = `The application does not answer${failing?.failing ? `; the figures are of ${clock(failing.failing)}` : ""}. Trying again.`;
  else if (!redis || state === "away") text = "Redis is down. Figures come from memory and the database, and trades are recorded: every window hears of them when it is back.";
  else if (state === "waiting") text = `The gateway does not answer. This page asks every ${POLL_MS / 1000} s instead of being told.`;
  if (at("banner").textContent !== text) at("banner").textContent = text;
  at("banner").hidden = !text;
}

/** While nobody tells us, ask. */
setInterval(async () => {
  if (!begun || at("sign-in").open) return;
  const quiet = at("state").dataset.state !== "open";
  const failing = [...Source.all.values()].some((source) => source.failing);
  if (!quiet && !failing && redis) return;
  try {
    redis = (await ask("/api/status")).body.redis;
  } catch {
    redis = null;
  }
  say();
  if (quiet && redis !== null) Source.all.forEach((source) => source.failing ?? source.refresh());
}, POLL_MS);

// -- with and without ---------------------------------------------------------------------------------------------------

/** @type {any} */ let soon = 0;
let measuring = 0;

/** Measure when it has been quiet for a moment: what is asked at the same time waits for each other. */
function measureSoon() {
  clearTimeout(soon);
  say();
  soon = setTimeout(measure, QUIET_MS);
}

/** Ask for everything one after the other, and show how long that took the server, with and without the cache. */
async function measure() {
  const mine = ++measuring;
  const found = [];
  const sum = { cached: 0, bare: 0 };
  try {
    for (const source of cacheable()) {
      const { provenance } = await ask(source.path());
      if (mode.bare) sum.bare += (await ask(source.path(), true)).provenance.ms;
      if (mine !== measuring) return;
      sum.cached += provenance.ms;
      found.push(provenance.source);
    }
  } catch {
    return; // the sources ask again, and then this is tried again
  }
  race(sum, found);
}

/** @param {{cached: number, bare: number}} sum @param {string[]} found */
function race({ cached, bare }, found) {
  const longest = Math.max(cached, bare, 100);
  at("lane-with").style.width = `${(100 * cached) / longest}%`;
  at("lane-without").style.width = `${(100 * bare) / longest}%`;
  at("time-with").textContent = took(cached);
  at("time-without").textContent = mode.bare ? `${took(bare)} · ${(bare / cached).toFixed(bare > 10 * cached ? 0 : 1)} × as long` : "flip the switch";
  const words = { memory: "memory", redis: "Redis", load: "a load" };
  const chips = Object.entries(words).map(([source, word]) => [source, `${found.filter((each) => each === source).length} from ${word}`])
    .filter(([, text]) => !text.startsWith("0 ")).map(([source, text]) => Object.assign(chip(source), { textContent: text }));
  at("sources").replaceChildren(...chips, `${found.length} answers, one after the other; times are the server's`);
}

at("bare").addEventListener("change", async () => {
  mode.bare = at("bare").checked;
  document.querySelector(".race")?.classList.toggle("on", mode.bare);
  for (const source of cacheable()) await source.refresh();
});

at("bare").checked = false; // browsers keep it over a reload
begin();
