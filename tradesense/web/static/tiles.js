// @ts-check
/** The tiles: what each source's answer looks like. */

import * as charts from "./charts.js";
import { direction, dollars, gain, moment, number, percent, ratio, round } from "./format.js";
import { at, light, made, press, put } from "./page.js";
import { Source, refresh } from "./sources.js";

/** What is being looked at. */
export const looked = { symbol: "AAPL", zone: "UTC" };

/** What a change of a setting makes other figures of. */
export const SHAPES = { time_zone: ["analytics"], grouping: ["analytics"], cost_basis: ["portfolio", "analytics"], risk_free_rate: ["risk"], theme: [] };
/** What a trade is part of. */
export const OF_TRADES = ["portfolio", "analytics", "risk", "trades"];

/** Read again what a message says has changed. @param {{type: string, data: any}} message */
export async function changed(message) {
  if (message.type.startsWith("trade.")) {
    await refresh("portfolio"); // what people look at first; risk takes longest
    await refresh(...OF_TRADES.filter((name) => name !== "portfolio"));
  }
  else if (message.type === "market.bar") await refresh("market", "portfolio", "risk");
  else if (message.type === "settings.changed") {
    const names = new Set((message.data?.changed ?? Object.keys(SHAPES)).flatMap((/** @type {keyof typeof SHAPES} */ name) => SHAPES[name] ?? []));
    await refresh("settings", ...names);
  }
}

/** @param {any} person */
function showMe(person) {
  const initials = person.name.split(" ").map((/** @type {string} */ word) => word[0]).join("");
  at("user").querySelector(".initials").textContent = initials;
  at("user").querySelector(".who").textContent = person.name;
  document.title = `${person.name} · TradeSense`;
}

/** @param {any} found */
function showPortfolio(found) {
  put("value", dollars(found.value_cents), { value: found.value_cents });
  put("unrealized", gain(found.unrealized_cents), { value: found.unrealized_cents, direction: direction(found.unrealized_cents) });
  put("realized", gain(found.realized_cents), { value: found.realized_cents, direction: direction(found.realized_cents) });
  put("trade-count", `${number(found.trades)} trades`, { value: found.trades });
  const all = found.positions.reduce((/** @type {number} */ sum, /** @type {any} */ held) => sum + Math.abs(held.value_cents), 0);
  const shares = found.positions.map((/** @type {any} */ held) => ({ ...held, weight: all ? Math.abs(held.value_cents) / all : 0 }));
  charts.showAllocation(shares);
  const before = new Map([...at("positions").rows].map((row) => [row.dataset.symbol, row.dataset.quantity]));
  at("positions").replaceChildren(...shares.map((/** @type {any} */ held) => {
    const row = cells([held.symbol, number(held.quantity), round(held.value_cents / 100), percent(held.weight, 1), gain(held.unrealized_cents, 0)]);
    row.cells[3].className = "narrow";
    row.cells[4].className = direction(held.unrealized_cents);
    Object.assign(row.dataset, { symbol: held.symbol, quantity: held.quantity });
    if (before.size && before.get(held.symbol) !== String(held.quantity)) light(row.cells[1]);
    return coloured(row, held.symbol);
  }));
}

/** @param {any} found */
function showAnalytics(found) {
  put("win-rate", percent(found.win_rate), { value: found.win_rate });
  put("profit-factor", ratio(found.profit_factor), { value: found.profit_factor });
  put("average-win", gain(found.average_win_cents), { value: found.average_win_cents });
  put("average-loss", gain(found.average_loss_cents), { value: found.average_loss_cents });
  put("best", gain(found.best_cents), { value: found.best_cents });
  put("worst", gain(found.worst_cents), { value: found.worst_cents });
  put("closed", number(found.closed), { value: found.closed });
  put("fees", dollars(found.fees_cents), { value: found.fees_cents });
  const { grouping } = Source.all.get("settings")?.body ?? {};
  at("grouped").textContent = `realized ${gain(found.realized_cents)}${grouping ? `, by ${grouping}` : ""}`;
  at("periods-chart").dataset.periods = String(found.periods.length);
  charts.showPeriods(found.periods);
}

/** @param {any} found */
function showRisk(found) {
  const last = found.equity.at(-1);
  put("equity-now", last ? dollars(last.value_cents) : "nothing yet", { value: last?.value_cents ?? 0 });
  put("equity-since", last ? `${gain(last.profit_cents)} since the first trade` : "", { direction: direction(last?.profit_cents ?? 0), value: last?.profit_cents ?? 0 });
  charts.showEquity(found.equity);
  at("risk-days").textContent = `${number(found.days)} days`;
  put("drawdown", percent(found.max_drawdown), { value: found.max_drawdown });
  at("drawdown-cents").textContent = `${dollars(-found.max_drawdown_cents)} from a peak of the profit`;
  put("volatility", percent(found.volatility), { value: found.volatility });
  put("sharpe", ratio(found.sharpe), { value: found.sharpe });
  const { risk_free_rate: rate } = Source.all.get("settings")?.body ?? {};
  at("sharpe-rate").textContent = rate === undefined ? " " : `above a risk-free ${percent(rate, 2)}`;
  const shares = { drawdown: found.max_drawdown, volatility: found.volatility ?? 0, sharpe: (found.sharpe ?? 0) / 3 };
  for (const [name, share] of Object.entries(shares)) at(`${name}-bar`).style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
}

/** @param {any} found */
function showMarket(found) {
  const [before, last] = found.bars.slice(-2);
  const change = last.close / before.close - 1;
  put("price-now", dollars(last.close * 100), { value: last.close });
  put("price-change", `${change < 0 ? "" : "+"}${percent(change, 2)} on ${last.day}`, { direction: direction(change) });
  charts.showPrices(found);
  document.dispatchEvent(new CustomEvent("price", { detail: last.close }));
}

/** @param {any[]} found */
function showTrades(found) {
  const known = new Set([...at("trades").rows].map((row) => row.dataset.id));
  at("trades").replaceChildren(...found.map((trade) => {
    const row = cells([moment(trade.at, looked.zone), trade.symbol, trade.side, number(trade.quantity), dollars(trade.price_cents), dollars(trade.quantity * trade.price_cents)]);
    row.cells[1].className = "symbol";
    row.cells[5].className = "narrow";
    row.cells[2].className = trade.side === "buy" ? "up" : "down";
    row.dataset.id = trade.id;
    row.style.setProperty("--symbol", `var(--${trade.symbol})`);
    row.classList.toggle("new", known.size > 0 && !known.has(String(trade.id)));
    return row;
  }));
}

/** @param {any} found */
function showSettings(found) {
  const form = at("settings");
  const zones = form.elements.time_zone;
  if (![...zones.options].some((option) => option.value === found.time_zone)) zones.append(new Option(found.time_zone));
  for (const name of ["time_zone", "grouping", "cost_basis"]) form.elements[name].value = found[name];
  if (document.activeElement !== form.elements.risk_free_rate) form.elements.risk_free_rate.value = String(+(100 * found.risk_free_rate).toFixed(4));
  looked.zone = found.time_zone;
  if (document.documentElement.dataset.theme !== found.theme) {
    document.documentElement.dataset.theme = localStorage.theme = found.theme;
    charts.recolour();
  }
}

/** @param {any} found */
function showInstruments(found) {
  const symbols = found.instruments.map((/** @type {any} */ each) => each.symbol);
  at("symbols").replaceChildren(...symbols.map((/** @type {string} */ symbol) => {
    const button = made("button", { type: "button", textContent: symbol, onclick: () => look(symbol) });
    button.setAttribute("aria-pressed", String(symbol === looked.symbol));
    return button;
  }));
  const select = at("trade-symbol");
  select.replaceChildren(...found.instruments.map((/** @type {any} */ each) => new Option(`${each.symbol} – ${each.name}`, each.symbol)));
  select.value = looked.symbol;
}

/** Show another symbol. @param {string} symbol */
export function look(symbol) {
  if (symbol === looked.symbol) return;
  document.dispatchEvent(new CustomEvent("look", { detail: { before: looked.symbol, now: symbol } }));
  looked.symbol = symbol;
  at("trade-symbol").value = symbol;
  const button = [...at("symbols").children].find((each) => each.textContent === symbol);
  if (button) press(at("symbols"), button);
  refresh("market");
}

/** @param {string[]} texts */
function cells(texts) {
  return made("tr", {}, texts.map((textContent) => made("td", { textContent })));
}

/** @param {HTMLTableRowElement} row @param {string} symbol */
function coloured(row, symbol) {
  row.cells[0].className = "symbol";
  row.style.setProperty("--symbol", `var(--${symbol})`);
  return row;
}

new Source("settings", () => "/api/settings", showSettings);
new Source("me", () => "/api/me", showMe);
new Source("portfolio", () => "/api/portfolio", showPortfolio);
new Source("analytics", () => "/api/analytics", showAnalytics);
new Source("risk", () => "/api/risk", showRisk);
new Source("market", () => `/api/market/${looked.symbol}`, showMarket);
new Source("instruments", () => "/api/instruments", showInstruments);
new Source("trades", () => "/api/trades", showTrades);

for (const button of document.querySelectorAll("[data-curve]")) {
  button.addEventListener("click", () => {
    press(/** @type {Element} */ (button.parentElement), button);
    const found = Source.all.get("risk")?.body;
    if (found) charts.showEquity(found.equity, /** @type {HTMLElement} */ (button).dataset.curve);
  });
}
for (const button of at("ranges").children) {
  button.addEventListener("click", () => {
    press(at("ranges"), button);
    charts.showRange(Number(button.dataset.bars));
  });
}
for (const button of at("overlays").children) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    charts.showOverlay(button.dataset.overlay, on);
  });
}

charts.recolour();
