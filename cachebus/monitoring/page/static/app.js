// The shell: which tab is shown, how old its figures are, how the deployment is, and what buttons and forms do.

import { ask } from "./api.js";
import { html, show } from "./dom.js";
import { TABS, href, refine, route } from "./route.js";
import { ago, confirmed, setTime, serverNow, shared, toast } from "./parts.js";
import { openSearch } from "./search.js";
import { clock, count } from "./words.js";

const $ = (id) => document.getElementById(id);
const OLD_MS = 8000, WORDS = { ok: "all well", warn: "look today", bad: "look now" }, SIGNS = { ok: "✓", warn: "▲", bad: "✕" };

let screen = null; // what is shown: {key, path, every, draw, after, begin, acts, forms}
let answer = null, asked = 0, asking = "", again = false, timer = 0, end = null, answeredAt = 0, why = "", spoken = "";

async function go() {
  const here = route();
  let wanted;
  try {
    wanted = (await import(`./tabs/${here.tab}.js`)).screen(here);
  } catch {
    return toast("This tab could not be loaded; reload the page.", true);
  }
  if (here.tab !== route().tab || here.noun !== route().noun) return;
  const other = !screen || screen.key !== wanted.key;
  screen = wanted;
  drawTabs(here);
  if (other) {
    end?.();
    answer = null;
    answeredAt = 0;
    const root = $("main");
    root.shown = null;
    show(root, html`<div class="waits" data-key="waits" role="status">looking…</div>`);
    scrollTo(0, 0);
    end = screen.begin?.(root) ?? null;
  }
  await refresh();
}

/** Ask for what is shown, and draw it; one question at a time, the next when this one is answered. */
async function refresh() {
  clearTimeout(timer);
  if (asking === screen.path) {
    again = true;
    return;
  }
  const mine = ++asked, of = screen;
  asking = of.path;
  try {
    const said = await ask(of.path);
    if (mine !== asked) return;
    setTime(said.at_ms);
    shared.me = said.me;
    shared.can = said.can;
    drawState(said.state);
    if (said.state.known || of.alone || !answer) answer = said;
    if (said.state.known) [answeredAt, why] = [said.at_ms, ""];
    else why = "Redis unavailable";
    draw();
  } catch (failed) {
    if (mine !== asked) return;
    failedWith(failed);
  }
  if (mine !== asked) return;
  asking = "";
  if (again || !document.hidden) timer = setTimeout(refresh, again ? 0 : screen.every ?? 3000);
  again = false;
}

function draw() {
  const root = $("main");
  if (answer.state.known || screen.alone) {
    show(root, screen.draw(answer.data, answer));
    screen.after?.(root, answer.data, answer);
  } else if (!answeredAt) show(root, html`<p class="none">Not known while Redis is unavailable.</p>`);
  root.dataset.at = location.hash;
  drawAge();
}

function failedWith(failed) {
  const signIn = failed.status === 401, bad = failed.status === 400 || failed.status === 404;
  why = signIn ? "signed out" : failed.status ? failed.message : "page unavailable";
  if (!bad) drawState({ level: "bad", says: why, known: false });
  if (signIn) show($("main"), html`<section class="card"><h1>Sign in to see this page.</h1><p>On the server, <code>cachebus page-link ${location.origin}</code> prints a link that does it.</p></section>`);
  else if (bad || !answer) show($("main"), html`<p class="none" role="alert">${failed.status ? failed.message : "The server of this page does not answer."}</p>`);
  if (failed.status === 503) ask("state").then((said) => drawState(said.state), () => {});
  if (bad) why = "";
  drawAge();
}

// -- above every tab ---

function drawTabs({ tab }) {
  const letters = shared.letters;
  show($("tabs"), html`${TABS.map(([name, title]) => html`<a href="${href(name)}" ${name === tab ? html`aria-current="page"` : ""}>${title}${name === "failures" && letters ? html` <i>${count(letters)}</i>` : ""}</a>`)}`);
}

function drawState(state) {
  const { level, says } = state;
  $("state").className = `state ${level}`;
  $("state").title = says;
  show($("state"), html`<i aria-hidden="true">${SIGNS[level]}</i><span>${WORDS[level]}</span>`);
  const title = TABS.find(([name]) => name === route().tab)[1];
  document.title = `${level === "ok" ? "" : `${SIGNS[level]} `}${route().noun || title} · cachebus`;
  if (spoken !== level) $("spoken").textContent = `The state is: ${WORDS[level]}. ${says}`;
  spoken = level;
  if (state.namespace === undefined) return;
  shared.letters = state.letters;
  drawTabs(route());
  show($("where"), html`${state.environment ? html`<b>${state.environment}</b> ` : ""}<span>${state.namespace}</span>`);
  const release = state.release ? html`release <b>${state.release.name.slice(0, 12)}</b> since ${ago(state.release.at_ms)}` : "no release is named (RELEASE)";
  show($("about"), html`<span>cachebus ${state.version}</span><span>${release}</span><span>times: ${Intl.DateTimeFormat().resolvedOptions().timeZone}</span>${state.watched ? "" : html`<span>since-when is known only while somebody looks: no worker watches</span>`}`);
  $("me").textContent = shared.me.admin ? `${shared.me.name} · admin` : "read only";
  $("me").className = shared.me.admin ? "me admin" : "me";
  $("me").title = shared.me.admin ? "You may act. Everything you do is written to the audit log." : "To act, sign in: cachebus page-link prints a link";
}

/** Say how old the figures are: "live" only while they are not, else since when, and greyed. */
function drawAge() {
  const old = answeredAt && serverNow() - answeredAt > OLD_MS + (screen?.every ?? 0);
  const said = why || (old ? "no answer" : "");
  $("age").className = said ? "age off" : "age on";
  $("age").textContent = said ? (answeredAt ? `${said}; figures of ${clock(answeredAt, true)}` : said) : answeredAt ? "live" : "";
  document.body.classList.toggle("old", Boolean(said));
}

// -- what people press ---

const SHARED_ACTS = {
  async do({ verb, body, title, text, yes }) {
    if (title && !(await confirmed(title, text ?? "", yes))) return;
    await act(verb, JSON.parse(body));
  },
  sort: ({ by }) => refine({ sort: route().params.sort === `-${by}` ? by : `-${by}` }),
  set: ({ name, value }) => refine({ [name]: value }, true),
  clear: ({ names }) => refine(Object.fromEntries(names.split(" ").map((name) => [name, ""]))),
};

/** Do something for an admin, say what became of it, and look again. */
export async function act(verb, body) {
  toast("working…");
  try {
    const done = await ask(verb, body);
    toast(done.done);
    screen.done?.(verb, done);
    return done;
  } catch (failed) {
    toast(failed.status ? failed.message : "The server of this page does not answer; look whether it was done.", true);
    return null;
  } finally {
    await refresh();
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (!button || button.disabled) return;
  const does = screen?.acts?.[button.dataset.act] ?? SHARED_ACTS[button.dataset.act];
  Promise.resolve(does?.(button.dataset, act, button)).catch((failed) => toast(failed.message, true));
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-form]");
  if (!form) return;
  event.preventDefault();
  const fields = Object.fromEntries(new FormData(form));
  Promise.resolve(screen?.forms?.[form.dataset.form]?.(fields, act, form)).catch((failed) => toast(failed.message, true));
});

let typing = 0;
document.addEventListener("input", ({ target }) => {
  if (!target.matches("[data-filter]")) return;
  clearTimeout(typing);
  typing = setTimeout(() => refine({ [target.name]: target.value }), 150);
});

document.addEventListener("keydown", (event) => {
  const typed = event.target.closest("input, select, textarea, dialog");
  if ((event.key === "k" && (event.ctrlKey || event.metaKey)) || (event.key === "/" && !typed)) {
    event.preventDefault();
    openSearch($("finder")); // at once: whoever presses Ctrl-K types on
  }
});

// -- begin ---

async function enter() {
  const code = location.hash.match(/^#enter=(.+)/)?.[1];
  if (!code) return;
  history.replaceState(null, "", `${location.pathname}#/now`);
  try {
    await ask("enter", { code });
  } catch (failed) {
    toast(failed.message, true);
  }
}

await enter();
$("search").addEventListener("click", () => openSearch($("finder")));
addEventListener("hashchange", go);
document.addEventListener("visibilitychange", () => { if (!document.hidden && screen) refresh(); });
setInterval(drawAge, 1000);
await go();
