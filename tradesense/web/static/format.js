// @ts-check
/** Figures as people read them. */

const money = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });
const signed = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", signDisplay: "exceptZero" });
const signedWhole = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", signDisplay: "exceptZero", maximumFractionDigits: 0 });
const whole = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", maximumFractionDigits: 0 });
const count = new Intl.NumberFormat("en-US");

/** @param {number} cents */
export const dollars = (cents) => money.format(cents / 100);
/** @param {number} cents @param {0 | 2} [digits] */
export const gain = (cents, digits = 2) => (digits ? signed : signedWhole).format(cents / 100);
/** @param {number} amount In dollars. */
export const round = (amount) => whole.format(amount);
/** @param {number} number */
export const number = (number) => count.format(number);
/** @param {number | null} share @param {number} [digits] */
export const percent = (share, digits = 1) => (share === null ? "–" : `${(100 * share).toFixed(digits)} %`);
/** @param {number | null} value */
export const ratio = (value) => (value === null ? "–" : value.toFixed(2));
/** @param {number} ms */
export const took = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : `${count.format(Math.round(ms))} ms`);
/** @param {string | number | Date} at */
export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");
/** @param {string} at @param {string} zone */
export const moment = (at, zone) =>
  new Date(at).toLocaleString("en-GB", { timeZone: zone, year: "2-digit", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" });

/** @param {number} seconds */
export function old(seconds) {
  if (seconds < 1) return "just now";
  if (seconds < 120) return `${Math.floor(seconds)} s old`;
  return `${Math.floor(seconds / 60)} min old`;
}

/** "up" or "down", as a class. @param {number} value */
export const direction = (value) => (value > 0 ? "up" : value < 0 ? "down" : "");
