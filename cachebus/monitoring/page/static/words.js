// Figures as people read them: three digits, always a unit.

/** Three digits: 1.23, 12.3, 123, 1230. */
const rounded = (number) => number.toFixed(number < 9.995 ? 2 : number < 99.95 ? 1 : 0).replace(/\.0+$/, "");

/** 1234567 -> "1.23M" */
export function count(number) {
  if (number === null || number === undefined) return "–";
  if (number < 9999.5) return Number.isInteger(number) ? number.toLocaleString("en") : number.toFixed(number < 9.95 ? 1 : 0);
  for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (number >= 0.9995 * size) return rounded(number / size) + letter; // 999,960 is 1M, not 1.00e+3k
}

/** 1, "worker" -> "1 worker"; 2000, "worker" -> "2,000 workers" */
export const number = (many, one, several = `${one}s`) => `${count(many)} ${many === 1 ? one : several}`;

/** Milliseconds -> "0.4 ms", "12 ms", "1.2 s", "5 min", "2 h" */
export function span(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0) return `−${span(-ms)}`;
  if (ms > 0 && ms < 0.05) return "< 0.1 ms";
  if (ms < 999.5) return `${ms < 10 && ms % 1 ? ms.toFixed(1) : Math.round(ms)} ms`;
  for (const [size, unit, most] of [[1000, "s", 120], [60000, "min", 120], [3.6e6, "h", 48]])
    if (ms < size * most) return `${ms / size < 10 && (ms / size) % 1 > 0.05 ? (ms / size).toFixed(1) : Math.round(ms / size)} ${unit}`;
  return `${Math.round(ms / 8.64e7)} days`;
}

/** A latency that was counted by steps: -1 is beyond the last. */
export const step = (ms) => (ms === null || ms === undefined ? "–" : ms < 0 ? "> 10 s" : span(ms));

/** Bytes -> "312 B", "4.2 kB", "3 GB" */
export const bytes = (number) => number === null || number === undefined ? "–"
  : number < 1000 ? `${Math.round(number)} B` : number < 999500 ? `${rounded(number / 1e3)} kB`
  : number < 9.995e8 ? `${rounded(number / 1e6)} MB` : `${rounded(number / 1e9)} GB`;

/** 0.9987 -> "99.9 %" ; never 100 % while something is missing, never 0 % while something is there */
export function share(part, whole = 1) {
  if (!whole || part === null || part === undefined) return "–";
  const percent = (100 * part) / whole;
  if (percent > 99.95 && part < whole) return "99.9 %";
  if (percent < 0.05 && part > 0) return "0.1 %";
  return `${percent.toFixed(percent === 100 || percent === 0 ? 0 : 1)} %`;
}

const two = (number) => String(number).padStart(2, "0");

/** Milliseconds of the epoch -> "14:02" in the zone of whoever looks; with seconds where they matter. */
export function clock(ms, seconds = false) {
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}${seconds ? `:${two(at.getSeconds())}` : ""}`;
}

/** The same with the day, where it is not today. */
export function moment(ms) {
  const at = new Date(ms);
  return at.toDateString() === new Date().toDateString() ? clock(ms, true) : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(ms)}`;
}

/** "t:user:7" -> ["tag", "user:7"] */
export const scope = (name) => (name === "*" ? ["everything", ""] : [{ "k:": "key", "t:": "tag", "p:": "prefix" }[name.slice(0, 2)] ?? "", name.slice(2)]);
