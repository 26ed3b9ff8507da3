// Addresses: #/tab/noun?filter=… Every noun has one, and it can be sent to a colleague.

import { query } from "./api.js";

export const TABS = [
  ["now", "Now"], ["views", "Views"], ["events", "Events"], ["failures", "Failures"], ["jobs", "Jobs"], ["browsers", "Browsers"],
  ["keys", "Keys"], ["limits", "Locks & limits"], ["machine", "Machine"], ["advice", "Advice"], ["audit", "Audit"],
];

const known = new Set(TABS.map(([tab]) => tab));

/** What the address says: {tab, noun, params}. */
export function route() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [tab, ...rest] = path.split("/");
  let noun = rest.join("/");
  try { noun = decodeURIComponent(noun); } catch { /* as it stands */ }
  return { tab: known.has(tab) ? tab : "now", noun, params: Object.fromEntries(new URLSearchParams(search ?? "")) };
}

export const href = (tab, noun = "", params = {}) => `#/${tab}${noun ? `/${encodeURIComponent(noun)}` : ""}${query(params)}`;

/** Go to the same page with other filters; *step*: the browser's back button comes back here. */
export function refine(changes, step = false) {
  const { tab, noun, params } = route();
  const address = href(tab, noun, { ...params, ...changes });
  if (address === location.hash) return;
  if (step) location.hash = address;
  else history.replaceState(null, "", address);
  if (!step) dispatchEvent(new HashChangeEvent("hashchange"));
}
