// @ts-check
/**
 * The gateway in a browser: messages of the topics you follow, each once and in order, across reconnections.
 *
 *     import { connect } from "http://localhost:8080/client.js";
 *     const live = connect({
 *       topics: ["user:42"],
 *       onMessage: () => show(),                      // something changed: fetch it again
 *       onReset: () => show(),                        // perhaps something was missed: fetch it again
 *     });
 *     const show = async () => render(await (await live.fetch("/orders/42")).json());
 *
 * `live.fetch` sends the newest `fresh_after` that was heard along, so an answer is never older than the message, and the
 * `traceparent` of a message that came just now.
 */

/** @typedef {{v: number, id: string|null, type: string, topic: string|null, ts: number, data: any, fresh_after: string, traceparent?: string}} Message */
/** @typedef {"connecting"|"open"|"away"|"waiting"|"refused"|"closed"} State `away`: connected to a gateway that hears nothing new. */
/**
 * @typedef {Object} Options
 * @property {string[]} topics
 * @property {(message: Message) => void} [onMessage]
 * @property {(topics: string[], message: Message) => void} [onReset] These topics may have missed something.
 * @property {(state: State) => void} [onState]
 * @property {(message: Message) => void} [onError] The gateway could not do what was asked; `data` says why.
 * @property {string} [url] Where the gateway is; without one, where this script came from.
 * @property {() => Promise<string>} [ticket] Asks your server for a ticket, where the gateway does not see your cookie.
 * @property {boolean} [sse] Begin with server-sent events.
 */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30000;
/** Heartbeats come every 25 s; the answer to a lost one is due 8 s later. */
const SILENCE_MS = 40000;
/** After this many WebSockets that never opened, something in between does not let them through. */
const TRIES_BEFORE_SSE = 3;
/** What is fetched so soon after a message is fetched because of it, and belongs to its trace. */
const TRACED_MS = 2000;
const GIVE_UP = [1009, 4400, 4429];
const NO_SESSION = 4401;

/** @param {Options} options */
export function connect(options) {
  return new Live(options);
}

/** Never two waits alike: after a restart a thousand browsers do not come back at one moment. @param {number} tries */
export function wait(tries) {
  const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** tries);
  return longest / 2 + (Math.random() * longest) / 2;
}

export class Live {
  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    this.topics = new Set(options.topics);
    this.base = options.url ?? new URL(".", import.meta.url).href;
    this.freshAfter = "";
    this.trace = "";
    this.heardAt = 0;
    /** @type {string|null} */ this.last = null;
    /** @type {State} */ this.state = "connecting";
    this.tries = 0;
    this.unopened = 0;
    this.refused = 0;
    this.sse = options.sse ?? typeof WebSocket === "undefined";
    /** @type {{close: () => void}|null} */ this.line = null;
    /** @type {any} */ this.watchdog = null;
    /** @type {any} */ this.timer = null;
    this.attempt = 0;
    if (typeof addEventListener === "function") addEventListener("online", () => this.hurry());
    this.open();
  }

  /** Follow more. @param {string[]} topics */
  subscribe(...topics) {
    topics.forEach((topic) => this.topics.add(topic));
    this.tell("subscribe", topics);
  }

  /** Follow fewer. @param {string[]} topics */
  unsubscribe(...topics) {
    topics.forEach((topic) => this.topics.delete(topic));
    this.tell("unsubscribe", topics);
  }

  /**
   * `fetch` that is not answered with anything older than what was heard: not by the server, nor by the browser's own
   * cache, which asks the server whether what it has is still right. A response may name a clock, too.
   * @param {string} url @param {RequestInit} [init]
   */
  async fetch(url, init = {}) {
    const headers = new Headers(init.headers);
    if (this.freshAfter) headers.set("Fresh-After", this.freshAfter);
    if (this.trace && Date.now() - this.heardAt < TRACED_MS) headers.set("traceparent", this.trace);
    const response = await fetch(url, { cache: "no-cache", ...init, headers });
    this.heard(response.headers.get("Fresh-After"));
    return response;
  }

  /** From now on nothing older will do: the clock of a change that this page made, or was told of. @param {string|null} clock */
  heard(clock) {
    if (clock && later(clock, this.freshAfter)) this.freshAfter = clock;
  }

  close() {
    this.become("closed");
    this.attempt += 1;
    clearTimeout(this.timer);
    this.hangUp();
  }

  // -- inside ---------------------------------------------------------------------------------------------------------

  async open() {
    const attempt = ++this.attempt;
    this.become("connecting");
    let ticket;
    try {
      ticket = this.options.ticket ? await this.options.ticket() : undefined;
    } catch {
      if (attempt === this.attempt) this.again();
      return;
    }
    if (attempt !== this.attempt) return;
    this.listen();
    if (this.sse) this.openEvents(attempt, ticket);
    else this.openSocket(attempt, ticket);
  }

  /** @param {number} attempt @param {string} [ticket] */
  openSocket(attempt, ticket) {
    const socket = new WebSocket(new URL("ws", this.base).href.replace(/^http/, "ws"));
    this.line = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.unopened = 0;
      const hello = { op: "hello", topics: [...this.topics], last: this.last ?? undefined, ticket };
      socket.send(JSON.stringify(hello));
    };
    socket.onmessage = (event) => attempt === this.attempt && this.hear(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (attempt !== this.attempt) return;
      if (!opened && ++this.unopened >= TRIES_BEFORE_SSE && typeof EventSource !== "undefined") this.sse = true;
      // A session that was renewed has another id: once is worth another try.
      if (GIVE_UP.includes(event.code) || (event.code === NO_SESSION && ++this.refused > 1)) this.refuse();
      else this.again();
    };
  }

  /** @param {number} attempt @param {string} [ticket] */
  openEvents(attempt, ticket) {
    const url = new URL("events", this.base);
    url.searchParams.set("topics", [...this.topics].join(","));
    if (this.last) url.searchParams.set("last", this.last);
    if (ticket) url.searchParams.set("ticket", ticket);
    const events = new EventSource(url, { withCredentials: !ticket });
    this.line = events;
    events.onmessage = (event) => attempt === this.attempt && this.hear(JSON.parse(event.data));
    events.onerror = () => {
      // Its own reconnection would use the ticket again, and none of our patience.
      events.close();
      if (attempt === this.attempt) this.again();
    };
  }

  /** @param {Message} message */
  hear(message) {
    this.listen();
    if (message.id) this.last = message.id;
    this.heard(message.fresh_after);
    const { onMessage, onReset, onError } = this.options;
    if (message.topic !== null) {
      this.trace = message.traceparent ?? "";
      this.heardAt = Date.now();
      onMessage?.(message);
      return;
    }
    if (message.type === "gateway.welcome") {
      this.tries = this.refused = 0;
      this.become("open");
    }
    if (message.type === "gateway.away") this.become("away");
    if (message.type === "gateway.back") this.become("open");
    if (message.type === "gateway.error") onError?.(message);
    if (message.data?.recovered === false) {
      const topics = message.type === "gateway.skipped" ? Object.keys(message.data.topics) : [...this.topics];
      onReset?.(topics, message);
    }
  }

  /** @param {string} op @param {string[]} topics */
  tell(op, topics) {
    if (this.state !== "open" && this.state !== "away") return; // the hello will say it
    if (this.line instanceof WebSocket) this.line.send(JSON.stringify({ op, topics }));
    else this.hurry(); // a stream cannot be told: a new one is
  }

  hurry() {
    if (this.state === "closed" || this.state === "refused") return;
    clearTimeout(this.timer);
    this.hangUp();
    this.open();
  }

  again() {
    this.hangUp();
    this.become("waiting");
    this.timer = setTimeout(() => this.open(), wait(this.tries++));
  }

  refuse() {
    this.hangUp();
    this.become("refused");
  }

  hangUp() {
    clearTimeout(this.watchdog);
    const line = this.line;
    this.line = null;
    this.attempt += 1;
    line?.close();
  }

  /** Nothing is heard for too long: the connection is dead, whatever the browser believes. */
  listen() {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.again(), SILENCE_MS);
  }

  /** @param {State} state */
  become(state) {
    if (this.state === state) return;
    this.state = state;
    this.options.onState?.(state);
  }
}

/** Clocks are `<number>.<era>`; of another era, the one heard last counts. @param {string} one @param {string} other */
function later(one, other) {
  const [number, era] = one.split("."), [least, before] = other.split(".");
  if (era !== before) return one !== "";
  return number.length > least.length || (number.length === least.length && number > least);
}
