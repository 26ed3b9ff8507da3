// Charts over time by uPlot: one shared axis, marks of what happened, a window by dragging, figures for everybody.

import { html, show } from "./dom.js";
import { refine } from "./route.js";
import { swatch } from "./parts.js";
import { clock, count, moment } from "./words.js";

const drawn = new WeakMap();
const resolved = new Map();
const probe = document.createElement("i");
let loading = null;

/** Load uPlot, once, when the first chart is to be drawn. */
const library = () => (loading ??= new Promise((resolve, reject) => {
  const sheet = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "page/vendor/uplot.css" });
  const script = Object.assign(document.createElement("script"), { src: "page/vendor/uplot.js", onload: () => resolve(window.uPlot), onerror: reject });
  document.head.append(sheet, script);
}));

/** A colour of the style sheet as a canvas takes it. */
function colour(name) {
  if (!resolved.has(name)) {
    document.body.append(probe);
    probe.style.color = `var(--${name})`;
    resolved.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return resolved.get(name);
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  resolved.clear();
  for (const element of document.querySelectorAll("[data-chart]")) drawn.get(element)?.plot?.redraw();
});

/** The same pattern as in the legend: stripes, dots, rules. */
function pattern(context, name) {
  const size = 6 * devicePixelRatio, tile = Object.assign(document.createElement("canvas"), { width: size, height: size });
  const draws = tile.getContext("2d");
  draws.fillStyle = colour(name);
  draws.fillRect(0, 0, size, size);
  draws.fillStyle = draws.strokeStyle = colour("over");
  if (name === "redis") {
    draws.lineWidth = size / 4;
    draws.beginPath();
    for (const shift of [-size, 0, size]) { draws.moveTo(shift, size); draws.lineTo(shift + size, 0); }
    draws.stroke();
  } else if (name === "joined") { draws.beginPath(); draws.arc(size / 2, size / 2, size / 4.5, 0, 7); draws.fill(); }
  else if (name === "missed") draws.fillRect(0, 0, size, size / 3.6);
  return context.createPattern(tile, "repeat");
}

/**
 * Draw in *element* (`<div data-own data-chart>`). *spec*: {title, at: seconds[], series: [{name, label, values, dash}],
 * stack, log, format, marks, window, most}. What is drawn already only gets the new figures.
 */
export async function chart(element, spec) {
  if (!element) return;
  element.spec = spec;
  let state = drawn.get(element);
  if (!state) {
    drawn.set(element, (state = { plot: null, at: null, live: false }));
    show(element, html`<div class="plot" tabindex="0" role="img"></div><div class="legend"></div><details class="figures"><summary>figures of “${spec.title}”</summary><div></div></details>`);
    const [plot, , details] = element.children;
    plot.addEventListener("keydown", (event) => step(element, state, event));
    plot.addEventListener("blur", () => { state.live = false; });
    details.addEventListener("toggle", () => tabulate(element));
    const UPlot = await library();
    if (!element.isConnected) return;
    state.plot = new UPlot(options(element, state, UPlot), figures(element.spec), plot);
    new ResizeObserver(() => state.plot.setSize({ width: plot.clientWidth, height: height(plot) })).observe(plot);
  } else if (state.plot) state.plot.setData(figures(spec));
  element.firstChild.ariaLabel = `${spec.title}. ${summary(spec)} Arrow keys read it step by step.`;
  read(element, state);
  tabulate(element);
}

const height = (plot) => Math.max(90, plot.clientHeight);

/** The columns uPlot draws: of a stack the sums, the highest first, so that each is painted over by the next. */
function figures({ at, series, stack }) {
  if (!stack) return [at, ...series.map(({ values }) => values.map((value) => (value === -1 ? 20_000 : value)))];
  const sums = [];
  let below = at.map(() => 0);
  for (const { values } of series) sums.push((below = below.map((sum, place) => sum + (values[place] ?? 0))));
  return [at, ...sums.reverse()];
}

function options(element, state, UPlot) {
  const { series, stack, log } = element.spec;
  const plot = element.firstChild, order = stack ? [...series].reverse() : series;
  const line = ({ name, dash }) => ({ stroke: () => colour(name), width: 2, dash, points: { show: (u, at) => lonely(u.data[at]), size: 5, fill: () => colour(name) }, spanGaps: false });
  const stacked = ({ name }) => ({ stroke: null, width: 0, fill: (u) => (name === "memory" ? colour(name) : pattern(u.ctx, name)), paths: UPlot.paths.bars({ size: [0.88, 36] }), points: { show: false } });
  const few = log ? { filter: (_, splits) => splits.map((value) => (/^[01.]*$/.test(String(value)) ? value : null)) } : {}; // the decades
  const text = () => colour("soft"), grid = { stroke: () => colour("line"), width: 1, ...few };
  return {
    width: plot.clientWidth, height: height(plot), legend: { show: false }, padding: [14, 8, 0, 0],
    cursor: { sync: { key: "time" }, drag: { x: true, y: false, setScale: false }, y: false, points: { show: false } },
    scales: {
      x: { time: true, range: (u, least, most) => { const step = (u.data[0][1] ?? least + 60) - u.data[0][0]; return [least - step / 2, most + step / 2]; } },
      y: log ? { distr: 3, range: (_, least, most) => [Math.min(1, least || 1), Math.max(10, most || 10) * 1.3] } : { range: (_, __, most) => [0, Math.max(element.spec.most ?? 0, (most || 1) * 1.08)] },
    },
    axes: [
      { stroke: text, grid: { show: false }, ticks: { show: false }, size: 24, font: "11px system-ui", values: (_, splits) => splits.map((at) => clock(1000 * at)), space: 60 },
      { stroke: text, grid, ticks: { show: false }, size: 56, font: "11px system-ui", ...few, values: (_, splits) => splits.map((value) => (value === null ? "" : element.spec.format(value))), space: 28 },
    ],
    series: [{}, ...order.map(stack ? stacked : line)],
    hooks: {
      draw: [(u) => marks(u, element.spec)],
      setCursor: [(u) => { state.at = u.cursor.left >= 0 ? u.cursor.idx : null; read(element, state); }],
      setSelect: [(u) => choose(u, element.spec)],
    },
  };
}

/** A value with nothing beside it makes no line: it is a point. */
const lonely = (values) => values.some((value, at) => value !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null);

function choose(u, { at, fixed }) {
  if (fixed || u.select.width < 6) return;
  const from = Math.round(u.posToVal(u.select.left, "x")), until = Math.round(u.posToVal(u.select.left + u.select.width, "x"));
  u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  if (at.length) refine({ from, until: Math.max(until, from + 60) }, true);
}

/** Draw spans in which the state was not green, the window that is chosen, and a line for each release and action. */
function marks(u, { marks: found = [], window }) {
  const { ctx: draws, bbox } = u, x = (ms) => u.valToPos(ms / 1000, "x", true), ratio = devicePixelRatio;
  const within = (place) => Math.max(bbox.left, Math.min(bbox.left + bbox.width, place));
  draws.save();
  if (window?.chosen) {
    const from = within(x(1000 * window.from_s)), until = within(x(1000 * window.until_s));
    draws.fillStyle = colour("chosen");
    draws.fillRect(from, bbox.top, until - from, bbox.height);
  }
  for (const { at_ms, until_ms, kind } of found) {
    if (kind === "warn" || kind === "bad") {
      const from = within(x(at_ms)), until = within(until_ms ? x(until_ms) : bbox.left + bbox.width);
      draws.fillStyle = colour(kind);
      draws.fillRect(from, bbox.top - 5 * ratio, Math.max(2 * ratio, until - from), 4 * ratio);
      continue;
    }
    const place = x(at_ms);
    if (place < bbox.left || place > bbox.left + bbox.width) continue;
    draws.strokeStyle = draws.fillStyle = colour(kind === "deploy" ? "link" : "ink");
    draws.setLineDash(kind === "deploy" ? [4 * ratio, 3 * ratio] : [2 * ratio, 4 * ratio]);
    draws.lineWidth = ratio;
    draws.beginPath(); draws.moveTo(place, bbox.top); draws.lineTo(place, bbox.top + bbox.height); draws.stroke();
    draws.beginPath(); draws.moveTo(place - 4 * ratio, bbox.top - 8 * ratio); draws.lineTo(place + 4 * ratio, bbox.top - 8 * ratio); draws.lineTo(place, bbox.top - 1 * ratio); draws.fill();
  }
  draws.restore();
}

const said = (spec, place) => spec.series.map(({ label, values }) => `${label} ${spec.shown ? spec.shown(values[place]) : spec.format(values[place])}`).join(", ");

/** The last step that says something: the one under way may be empty still. */
function latest({ at, series, stack }) {
  const last = at.findLastIndex((_, place) => series.some(({ values }) => (stack ? values[place] : (values[place] ?? null) !== null)));
  return last < 0 ? at.length - 1 : last;
}

function summary(spec) {
  const last = latest(spec);
  return last < 0 ? "No figures yet." : `Latest, ${clock(1000 * spec.at[last])}: ${said(spec, last)}.`;
}

/** Write the figures under the pointer, or the latest, into the legend. */
function read(element, state) {
  const { spec } = element, place = state.at ?? latest(spec), show_ = spec.shown ?? spec.format;
  const key = (one) => (spec.stack ? swatch(one.name) : html`<svg class="swatch" width="18" height="10" aria-hidden="true"><line class="c-${one.name}" x1="0" x2="18" y1="5" y2="5" ${one.dash ? html`stroke-dasharray="${one.dash.join(" ")}"` : ""}/></svg>`);
  const near = state.at === null ? [] : (spec.marks ?? []).filter(({ at_ms }) => Math.abs(at_ms / 1000 - spec.at[place]) <= ((spec.at[1] - spec.at[0]) || 60) / 2);
  const legend = html`${spec.series.map((one) => html`<span>${key(one)}${one.label} <b>${show_(one.values[place])}</b></span>`)}<span class="at">${spec.at.length ? clock(1000 * spec.at[place]) : ""}${near.map(({ text }) => html` · ${text}`)}</span>`;
  element.children[1].ariaLive = state.live ? "polite" : "off";
  show(element.children[1], legend);
}

function step(element, state, event) {
  const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key], { at } = element.spec;
  if (moves === undefined || !at.length || !state.plot) return;
  event.preventDefault();
  state.live = true;
  state.at = Math.max(0, Math.min(at.length - 1, (state.at ?? at.length - 1) + moves));
  state.plot.setCursor({ left: state.plot.valToPos(at[state.at], "x"), top: 10 });
}

/** The figures as a table, for whoever opens it. */
function tabulate(element) {
  const { spec } = element, details = element.children[2], show_ = spec.shown ?? spec.format;
  if (!details.open) return;
  show(details.lastChild, html`<div class="scroll" tabindex="0" role="region" aria-label="Figures of ${spec.title}"><table><thead><tr><th scope="col">from</th>${spec.series.map(({ label }) => html`<th scope="col" class="num">${label}</th>`)}</tr></thead><tbody>${spec.at.map((at, place) => html`<tr><td>${clock(1000 * at)}</td>${spec.series.map(({ values }) => html`<td class="num">${show_(values[place])}</td>`)}</tr>`).reverse()}</tbody></table></div>`);
}

/** The place of a chart; its height never changes, so that nothing below moves. */
export const place = (name, kind = "") => html`<div class="chart ${kind}" data-own data-chart="${name}" data-key="chart-${name}"></div>`;

/** What happened, in words, for whoever does not see the marks. */
export const markList = (found) => (found.length ? html`<details class="marks"><summary>${count(found.length)} ${found.length === 1 ? "mark" : "marks"} on the axis</summary><ol>${[...found].reverse().slice(0, 50).map(({ at_ms, until_ms, kind, text }) => html`<li><time>${moment(at_ms)}${until_ms ? ` – ${clock(until_ms)}` : ""}</time> <span class="chip ${kind}">${{ deploy: "▼ deploy", admin: "▽ admin", warn: "▲ look today", bad: "✕ look now" }[kind]}</span> ${text}</li>`)}</ol></details>` : "");
