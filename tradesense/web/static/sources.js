// @ts-check
/**
 * What the tiles show: each source is one request, whose answer says what gave it, how long that took and how old it
 * is. With `bare` the same is asked of the bare database as well, and that is what the page shows.
 */

import { old, took } from "./format.js";
import { made } from "./page.js";

const RETRY_MS = 1000;
const LONGEST_RETRY_MS = 5000;

/** @typedef {{source: string, ms: number, loadedAt: number}} Provenance */

const WORDS = { memory: "memory", redis: "Redis", load: "a load", database: "database", none: "no answer" };

/** Set by `app.js`: a fetch that is never answered with anything older than what this window has heard. */
export const net = {
  /** @type {(url: string, init?: RequestInit) => Promise<Response>} */
  fetch: (url, init) => fetch(url, { cache: "no-cache", ...init }),
  /** From now on nothing older than this clock will do. @param {string} clock */
  heard: (clock) => {},
  /** Called when nobody is signed in any more. */
  lost: () => {},
};

export class NotSignedIn extends Error {}

/** Whether the page shows what the bare database says. */
export const mode = { bare: false };

export class Source {
  /** @type {Map<string, Source>} */
  static all = new Map();
  /** Called whenever an answer has come, or has not. */
  static answered = () => {};

  /**
   * @param {string} name @param {() => string} path @param {(body: any) => void} render
   */
  constructor(name, path, render) {
    this.name = name;
    this.path = path;
    this.render = render;
    /** @type {any} */ this.body = null;
    /** @type {Provenance | null} */ this.cached = null;
    /** @type {Provenance | null} */ this.bare = null;
    /** @type {Date | null} */ this.failing = null;
    this.asked = 0;
    this.retries = 0;
    this.answers = 0;
    /** @type {HTMLElement[]} */
    this.tiles = [...document.querySelectorAll(/** @type {"section"} */ (`[data-source-of="${name}"]`))];
    Source.all.set(name, this);
  }

  /** Ask again; a later question's answer wins, whichever comes first. */
  async refresh() {
    const mine = ++this.asked;
    try {
      let { body, provenance } = await ask(this.path());
      let bare = null;
      if (mode.bare && cacheable().includes(this)) ({ body, provenance: bare } = await ask(this.path(), true));
      if (mine !== this.asked) return;
      Object.assign(this, { body, cached: provenance, bare, failing: null, retries: 0, answers: this.answers + 1 });
    } catch (problem) {
      if (mine !== this.asked) return;
      if (problem instanceof NotSignedIn) return net.lost();
      this.failing ??= new Date();
      const wait = Math.min(LONGEST_RETRY_MS, RETRY_MS * 1.5 ** this.retries++);
      setTimeout(() => mine === this.asked && this.refresh(), wait);
    }
    if (!this.failing) this.render(this.body);
    this.show();
    Source.answered();
  }

  /** Say beneath each tile where its figures are from. */
  show() {
    for (const tile of this.tiles) {
      tile.classList.toggle("old", this.failing !== null);
      tile.dataset.answers = String(this.answers);
      const foot = tile.querySelector(".provenance");
      if (foot === null || this.cached === null) continue;
      const { source, ms } = this.bare ?? this.cached;
      const parts = [chip(source), made("span", { className: "took", textContent: took(ms) })];
      if (this.bare !== null) parts.push(made("span", { className: "instead", textContent: `with cachebus ${took(this.cached.ms)}` }));
      if (this.failing) parts.unshift(chip("none"));
      parts.push(made("span", { className: "age" }));
      foot.replaceChildren(...parts);
    }
    this.grow();
  }

  /** Write how old it is by now. */
  grow() {
    const { loadedAt, source } = this.bare ?? this.cached ?? { loadedAt: Date.now(), source: "" };
    const text = source === "database" ? "never cached" : old((Date.now() - loadedAt) / 1000);
    for (const tile of this.tiles) {
      const age = tile.querySelector(".age");
      if (age !== null) age.textContent = this.bare !== null && source === "database" ? "loaded for this look" : text;
    }
  }
}

/** @param {string} source */
export function chip(source) {
  const element = made("span", { className: "chip", textContent: WORDS[/** @type {keyof typeof WORDS} */ (source)] ?? source });
  element.dataset.source = source;
  return element;
}

/** @param {string} path @param {boolean} [bare] @returns {Promise<{body: any, provenance: Provenance}>} */
export async function ask(path, bare = false) {
  const answer = await net.fetch(bare ? `${path}?bare=true` : path);
  if (answer.status === 401) throw new NotSignedIn();
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  const body = await answer.json();
  const ms = Number(/dur=([\d.]+)/.exec(answer.headers.get("Server-Timing") ?? "")?.[1] ?? 0);
  const age = Number(answer.headers.get("Age") ?? 0);
  return { body, provenance: { source: whatAnswered(answer, bare), ms, loadedAt: Date.now() - 1000 * age } };
}

/** `Cache-Status` in a word. @param {Response} answer @param {boolean} bare */
function whatAnswered(answer, bare) {
  const status = answer.headers.get("Cache-Status");
  if (bare || status === null) return "database";
  const detail = /detail=(\w+)/.exec(status)?.[1];
  return detail === "memory" || detail === "redis" ? detail : "load";
}

/** Read these again. @param {string[]} names */
export const refresh = (...names) => Promise.all(names.map((name) => Source.all.get(name)?.refresh()));

/** Those whose answers may be cached, which is what "with" and "without" are about. */
export const cacheable = () => [...Source.all.values()].filter((source) => source.name !== "trades");

setInterval(() => Source.all.forEach((source) => source.grow()), 1000);
