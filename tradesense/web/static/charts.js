// @ts-check
/** The charts, by Lightweight Charts (vendored); in the page's colours, and with the arrow keys. */

import {
  BaselineSeries, CandlestickSeries, ColorType, CrosshairMode, HistogramSeries, LineSeries, createChart,
} from "./vendor/lightweight-charts-5.2.1.js";
import { at, made } from "./page.js";
import { dollars, gain, number, percent, round } from "./format.js";

/** @type {(() => void)[]} */
const themed = [];

const probe = made("span", { hidden: true });
document.body.append(probe);

/** A colour of the page in the theme that holds, as `rgb(…)`. @param {string} name */
function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
/** @param {string} name @param {number} alpha */
const faint = (name, alpha) => colour(name).replace("rgb(", "rgba(").replace(")", `, ${alpha})`);

/** Draw all charts in the colours of the theme that holds now. */
export const recolour = () => themed.forEach((paint) => paint());

/** @param {string} id @param {Record<string, any>} [options] */
function chart(id, options = {}) {
  const drawn = createChart(at(id), {
    autoSize: true,
    handleScroll: { vertTouchDrag: false, mouseWheel: false },
    handleScale: { mouseWheel: false },
    rightPriceScale: { borderVisible: false },
    timeScale: { borderVisible: false, fixLeftEdge: true, fixRightEdge: true },
    crosshair: { mode: CrosshairMode.Magnet },
    ...options,
  });
  themed.push(() => drawn.applyOptions({
    layout: {
      background: { type: ColorType.Solid, color: colour("surface") },
      textColor: colour("quiet"),
      fontFamily: getComputedStyle(document.body).fontFamily,
      fontSize: 11,
      attributionLogo: id === "price-chart",
      panes: { separatorColor: colour("line"), separatorHoverColor: colour("line"), enableResize: false },
    },
    grid: { vertLines: { visible: false }, horzLines: { color: colour("grid") } },
    crosshair: { vertLine: { color: colour("quiet"), labelBackgroundColor: colour("accent") }, horzLine: { color: colour("quiet"), labelBackgroundColor: colour("accent") } },
  }));
  return drawn;
}

/**
 * Tell *shown* which row the pointer, or an arrow key, is at.
 * @param {any} chart @param {any} series @param {string} id
 * @param {() => {time: string, value: number}[]} rows @param {(index: number) => void} shown
 */
function walked(chart, series, id, rows, shown) {
  let index = -1;
  chart.subscribeCrosshairMove((/** @type {any} */ move) => {
    index = move.logical === undefined ? -1 : Math.max(0, Math.min(rows().length - 1, move.logical));
    shown(index < 0 ? rows().length - 1 : index);
  });
  at(id).addEventListener("keydown", (/** @type {KeyboardEvent} */ key) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -21, PageDown: 21, Home: -Infinity, End: Infinity }[key.key];
    if (steps === undefined) return;
    key.preventDefault();
    const last = rows().length - 1;
    index = Math.max(0, Math.min(last, (index < 0 ? last : index) + steps));
    at(id).nextElementSibling.setAttribute("aria-live", "polite"); // read out what a key moved, not what a message did
    chart.setCrosshairPosition(rows()[index].value, rows()[index].time, series);
    shown(index);
  });
  at(id).addEventListener("blur", () => chart.clearCrosshairPosition());
}

// -- equity -------------------------------------------------------------------------------------------------------------

const equity = chart("equity-chart", { localization: { priceFormatter: round } });
equity.priceScale("right").applyOptions({ scaleMargins: { top: 0.12, bottom: 0.08 } });
const curve = equity.addSeries(BaselineSeries, { lineWidth: 2, priceLineVisible: false, lastValueVisible: true });
themed.push(() => curve.applyOptions({
  topLineColor: colour("up"), topFillColor1: faint("up", 0.33), topFillColor2: faint("up", 0.02),
  bottomLineColor: colour("down"), bottomFillColor1: faint("down", 0.02), bottomFillColor2: faint("down", 0.33),
}));
/** @type {any[]} */ let points = [];
let shownCurve = "profit";
walked(equity, curve, "equity-chart", equityRows, equityLegend);

/** @param {number} index */
function equityLegend(index) {
  const point = points[index];
  at("equity-legend").textContent = point ? `${point.day} · worth ${dollars(point.value_cents)} · profit since the first trade ${gain(point.profit_cents)}` : "";
}

function equityRows() {
  return points.map((point) => ({ time: point.day, value: point[`${shownCurve}_cents`] / 100 }));
}

/** @param {any[]} given `Risk.equity` @param {string} [which] profit or value */
export function showEquity(given, which = shownCurve) {
  points = given;
  shownCurve = which;
  curve.setData(equityRows());
  equity.timeScale().fitContent();
  equityLegend(points.length - 1);
}

// -- a symbol's prices ----------------------------------------------------------------------------------------------------

const price = chart("price-chart");
const candles = price.addSeries(CandlestickSeries, { borderVisible: false, priceLineVisible: false });
const volume = price.addSeries(HistogramSeries, { priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false });
price.priceScale("volume").applyOptions({ scaleMargins: { top: 0.86, bottom: 0 } });
candles.priceScale().applyOptions({ scaleMargins: { top: 0.06, bottom: 0.16 } });
/** @type {any} */ let history = null;
let bars = 126;
const overlays = { sma: true, bollinger: false, rsi: true, macd: false };
/** @type {Record<string, any>} By name of the indicator. */
const lines = {};
const LINES = {
  sma: [["sma_20", "accent"], ["sma_50", "GOOG"]],
  bollinger: [["bollinger_upper", "quiet"], ["bollinger_lower", "quiet"]],
  rsi: [["rsi_14", "redis"]],
  macd: [["macd", "accent"], ["macd_signal", "GOOG"]],
};
themed.push(() => {
  candles.applyOptions({ upColor: colour("up"), downColor: colour("down"), wickUpColor: colour("up"), wickDownColor: colour("down") });
  if (history) showPrices(history);
});
walked(price, candles, "price-chart", () => history.bars.map((/** @type {any} */ bar) => ({ time: bar.day, value: bar.close })), priceLegend);

/** @param {any} given `PriceHistory` */
export function showPrices(given) {
  const kept = history?.symbol === given.symbol ? price.timeScale().getVisibleLogicalRange() : null;
  history = given;
  candles.setData(given.bars.map((/** @type {any} */ bar) => ({ time: bar.day, ...bar })));
  volume.setData(given.bars.map((/** @type {any} */ bar) => ({
    time: bar.day, value: bar.volume, color: faint(bar.close >= bar.open ? "up" : "down", 0.25),
  })));
  drawIndicators();
  if (kept) price.timeScale().setVisibleLogicalRange(kept);
  else showRange(bars);
  priceLegend(given.bars.length - 1);
}

function drawIndicators() {
  for (const name of Object.keys(lines)) {
    price.removeSeries(lines[name]);
    delete lines[name];
  }
  let panes = 1;
  for (const [overlay, series] of Object.entries(LINES)) {
    if (!overlays[/** @type {keyof typeof overlays} */ (overlay)]) continue;
    const pane = overlay === "rsi" || overlay === "macd" ? panes++ : 0;
    for (const [name, tone] of series) {
      lines[name] = price.addSeries(LineSeries, {
        color: colour(tone), lineWidth: name.startsWith("bollinger") ? 1 : 1.5, priceLineVisible: false,
        lastValueVisible: pane > 0, crosshairMarkerVisible: false, lineStyle: name.startsWith("bollinger") ? 2 : 0,
      }, pane);
      const values = history.indicators[name];
      lines[name].setData(history.bars.map((/** @type {any} */ bar, /** @type {number} */ index) =>
        values[index] === null ? { time: bar.day } : { time: bar.day, value: values[index] }));
    }
  }
  price.panes().forEach((/** @type {any} */ pane, /** @type {number} */ index) => pane.setStretchFactor(index === 0 ? 4 : 1));
}

/** @param {number} index */
function priceLegend(index) {
  const bar = history?.bars[index];
  if (!bar) return;
  const parts = [`O ${bar.open.toFixed(2)}`, `H ${bar.high.toFixed(2)}`, `L ${bar.low.toFixed(2)}`, `C ${bar.close.toFixed(2)}`, `vol. ${number(bar.volume)}`];
  const names = { sma_20: "SMA 20", sma_50: "SMA 50", bollinger_upper: "upper", bollinger_lower: "lower", rsi_14: "RSI", macd: "MACD", macd_signal: "signal" };
  for (const [name, text] of Object.entries(names)) {
    const value = history.indicators[name][index];
    if (lines[name] && value !== null) parts.push(`${text} ${value.toFixed(2)}`);
  }
  at("price-legend").replaceChildren(Object.assign(document.createElement("b"), { textContent: bar.day }), ` · ${parts.join(" · ")}`);
}

/** Show the last so many bars. @param {number} count */
export function showRange(count) {
  bars = count;
  if (history) price.timeScale().setVisibleLogicalRange({ from: history.bars.length - count - 0.5, to: history.bars.length - 0.5 });
}

/** @param {string} name @param {boolean} on */
export function showOverlay(name, on) {
  overlays[/** @type {keyof typeof overlays} */ (name)] = on;
  if (!history) return;
  drawIndicators();
  priceLegend(history.bars.length - 1);
}

// -- profit by period -------------------------------------------------------------------------------------------------------

const periods = chart("periods-chart", { localization: { priceFormatter: round }, handleScroll: false, handleScale: false });
periods.priceScale("right").applyOptions({ scaleMargins: { top: 0.14, bottom: 0.08 } });
const columns = periods.addSeries(HistogramSeries, { priceLineVisible: false, lastValueVisible: false });
/** @type {any[]} */ let periodRows = [];
themed.push(drawPeriods);

/** @param {any[]} given `TradeAnalytics.periods` */
export function showPeriods(given) {
  if (JSON.stringify(given) === JSON.stringify(periodRows)) return; // a purchase closes nothing
  periodRows = given;
  drawPeriods();
}

function drawPeriods() {
  columns.setData(periodRows.map((period) => ({
    time: period.begins, value: period.realized_cents / 100, color: colour(period.realized_cents < 0 ? "down" : "up"),
  })));
  periods.timeScale().fitContent();
}

// -- allocation -----------------------------------------------------------------------------------------------------------

const RING = 2 * Math.PI * 15.9155;

/** @param {{symbol: string, weight: number}[]} shares Weights add up to 1. */
export function showAllocation(shares) {
  const donut = at("donut");
  let begun = 0;
  const rings = shares.map(({ symbol, weight }) => {
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    const length = Math.max(0, weight * RING - (shares.length > 1 ? 0.6 : 0));
    for (const [name, value] of Object.entries({ cx: 21, cy: 21, r: 15.9155, "stroke-dasharray": `${length} ${RING}`, "stroke-dashoffset": -begun * RING })) ring.setAttribute(name, String(value));
    ring.style.stroke = `var(--${symbol}, var(--quiet))`;
    begun += weight;
    return ring;
  });
  donut.replaceChildren(...rings);
  donut.setAttribute("aria-label", `Allocation: ${shares.map(({ symbol, weight }) => `${symbol} ${percent(weight, 0)}`).join(", ") || "nothing held"}`);
}
