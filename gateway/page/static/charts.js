// Charts drawn by hand as SVG: stacked bars and lines on a logarithmic scale, read with the pointer or the arrow keys.

class Raw { constructor(text) { this.text = text; } toString() { return this.text; } }
const escaped = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const plain = (value) =>
  value instanceof Raw ? value.text
  : Array.isArray(value) ? value.map(plain).join("")
  : value === null || value === undefined || value === false ? ""
  : String(value).replace(/[&<>"']/g, (letter) => escaped[letter]);

/** Markup in which everything that is put in is escaped, unless it is markup itself. */
export const html = (parts, ...values) => new Raw(parts.reduce((text, part, at) => text + plain(values[at - 1]) + part));

/** Make *target* contain *markup*, changing only what differs: focus, selection and open details stay. */
export function show(target, markup) {
  const wanted = document.createElement("template");
  wanted.innerHTML = String(markup);
  match(target, wanted.content);
  for (const sized of target.querySelectorAll("[data-w]")) sized.style.width = `${sized.dataset.w}%`;
}

function match(target, wanted) {
  const want = [...wanted.childNodes];
  want.forEach((node, at) => {
    let old = target.childNodes[at];
    const id = node.dataset?.id;
    if (id !== undefined && old?.dataset?.id !== id) { // keyed: moved, so that it stays open and focused
      const moved = [...target.children].find((child) => child.dataset.id === id);
      target.insertBefore(moved ?? node, old ?? null);
      if (!moved) return;
      old = moved;
    }
    if (!old) target.append(node);
    else if (old.nodeName !== node.nodeName || old.dataset?.id !== id) old.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) { if (old.data !== node.data) old.data = node.data; }
    else if (old.getAttribute?.("class") !== "cursor") {
      for (const { name } of [...old.attributes]) if (!node.hasAttribute(name) && name !== "style" && name !== "open") old.removeAttribute(name);
      for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
      match(old, node);
    }
  });
  while (target.childNodes.length > want.length) target.lastChild.remove();
}

/** 1234567 -> "1.23M" */
export function count(number) {
  if (number < 10000) return Number.isInteger(number) ? number.toLocaleString("en") : number.toFixed(number < 10 ? 1 : 0);
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (number >= size) return (number / size).toPrecision(3).replace(/\.0+$/, "") + letter;
}

/** Milliseconds -> "0.4 ms", "12 ms", "1.2 s", "5 min", "2 h" */
export function span(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0) return "> 10 s";
  if (ms < 1000) return `${ms < 10 && ms % 1 ? ms.toFixed(1) : Math.round(ms)} ms`;
  for (const [size, unit, most] of [[1000, "s", 120], [60000, "min", 120], [3.6e6, "h", 48]])
    if (ms < size * most) return `${ms / size < 10 && (ms / size) % 1 > 0.05 ? (ms / size).toFixed(1) : Math.round(ms / size)} ${unit}`;
  return `${Math.round(ms / 8.64e7)} days`;
}

/** Bytes -> "312 B", "4.2 kB" */
export const bytes = (number) => number === null || number === undefined ? "–"
  : number < 1000 ? `${number} B` : number < 1e6 ? `${(number / 1e3).toPrecision(3)} kB`
  : number < 1e9 ? `${(number / 1e6).toPrecision(3)} MB` : `${(number / 1e9).toPrecision(3)} GB`;

export const clock = (ms, seconds) => new Date(ms).toLocaleTimeString("en-GB", seconds ? undefined : { hour: "2-digit", minute: "2-digit" });

const RIGHT = 4, LEFT = 38, BOTTOM = 18, TOP = 6;

function axis(steps, width, height, marks, y, name) {
  const slot = (width - LEFT - RIGHT) / steps.length;
  const every = Math.ceil(steps.length / Math.max(2, Math.floor(width / 110)));
  const times = steps.map((step, at) => (at % every === Math.floor(every / 2)) && html`<text x="${LEFT + slot * (at + 0.5)}" y="${height - 3}" text-anchor="middle">${clock(step.at * 1000)}</text>`);
  const lines = marks.map((mark) => html`<line class="grid" x1="${LEFT}" x2="${width - RIGHT}" y1="${y(mark)}" y2="${y(mark)}"/><text x="${LEFT - 7}" y="${y(mark) + 4}" text-anchor="end">${name(mark)}</text>`);
  return html`${lines}${times}<line class="cursor" visibility="hidden" y1="${TOP}" y2="${height - BOTTOM}"/>`;
}

/** Bars of *layers* ({name, key, class}), one for each step. */
export function stacked(width, height, steps, layers, label) {
  const top = Math.max(4, ...steps.map((step) => layers.reduce((sum, layer) => sum + step[layer.key], 0)));
  const unit = 10 ** Math.floor(Math.log10(top));
  const most = [1, 2, 3, 4, 5, 6, 8, 10].map((times) => times * unit).find((nice) => nice >= top);
  const y = (value) => TOP + (height - TOP - BOTTOM) * (1 - value / most);
  const slot = (width - LEFT - RIGHT) / steps.length, wide = Math.max(1, slot * 0.76);
  const bars = steps.map((step, at) => {
    let sum = 0;
    return layers.map((layer) => {
      const [from, to] = [y(sum), y(sum += step[layer.key])];
      return step[layer.key] > 0 && html`<rect class="c-${layer.class}" fill="var(--c)" x="${(LEFT + slot * at + (slot - wide) / 2).toFixed(1)}" width="${wide.toFixed(1)}" y="${to.toFixed(1)}" height="${Math.max(0.6, from - to - 0.7).toFixed(1)}" rx="1"/>`;
    });
  });
  return html`<svg class="chart" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" tabindex="0" aria-label="${label}">${axis(steps, width, height, [0, most / 2, most], y, count)}${bars}</svg>`;
}

/** Lines over a logarithmic scale of milliseconds; each is told by its dashes as well as by its colour. */
export function lines(width, height, steps, series, label) {
  const value = (step, key) => (step[key] === null ? null : step[key] < 0 ? 20000 : Math.max(1, step[key]));
  const top = Math.max(10, ...steps.flatMap((step) => series.map(({ key }) => value(step, key) ?? 1)));
  const decades = Math.ceil(Math.log10(top) - 1e-9);
  const y = (ms) => TOP + (height - TOP - BOTTOM) * (1 - Math.log10(ms) / decades);
  const slot = (width - LEFT - RIGHT) / steps.length;
  const paths = series.map(({ key, dash, colour, thick }) => {
    let path = "", alone = [];
    steps.forEach((step, at) => {
      const found = value(step, key), x = LEFT + slot * (at + 0.5);
      if (found === null) return;
      const [before, after] = [at && value(steps[at - 1], key), at + 1 < steps.length ? value(steps[at + 1], key) : null];
      path += `${at && before !== null ? "L" : "M"}${x.toFixed(1)} ${y(found).toFixed(1)}`;
      if ((!at || before === null) && after === null) alone.push(html`<circle cx="${x}" cy="${y(found)}" r="2.5" fill="${colour}"/>`);
    });
    return html`<path d="${path}" fill="none" stroke="${colour}" stroke-width="${thick}" stroke-dasharray="${dash}" stroke-linejoin="round"/>${alone}`;
  });
  const marks = Array.from({ length: decades + 1 }, (_, power) => 10 ** power).filter((_, at) => decades < 4 || at % 2 === 0);
  return html`<svg class="chart" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" tabindex="0" aria-label="${label}">${axis(steps, width, height, marks, y, (ms) => (ms < 1000 ? `${ms} ms` : `${ms / 1000} s`))}${paths}</svg>`;
}

/** Let a chart be read: the step under the pointer or the arrow keys is *place*.cursor, and *told* is called. */
export function readable(place, length, told) {
  const move = (at) => {
    const chart = place.querySelector("svg.chart"), line = chart?.querySelector(".cursor");
    if (!line) return;
    place.cursor = at;
    const x = LEFT + ((chart.clientWidth - LEFT - RIGHT) / length()) * ((at ?? 0) + 0.5);
    for (const [name, value] of [["x1", x], ["x2", x], ["visibility", at === null ? "hidden" : "visible"]]) line.setAttribute(name, value);
    told();
  };
  place.addEventListener("pointermove", (event) => {
    const chart = event.target.closest?.("svg.chart");
    if (!chart) return;
    const x = event.clientX - chart.getBoundingClientRect().left - LEFT;
    move(Math.max(0, Math.min(length() - 1, Math.floor((x / (chart.clientWidth - LEFT - RIGHT)) * length()))));
  });
  place.addEventListener("pointerleave", () => move(null));
  place.addEventListener("focusout", () => move(null));
  place.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !event.target.closest("svg.chart")) return;
    event.preventDefault();
    move(Math.max(0, Math.min(length() - 1, (place.cursor ?? length()) + step)));
  });
}
