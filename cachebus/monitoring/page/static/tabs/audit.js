// Audit: who did what, on this page and by command.

import { html } from "../dom.js";
import { ago, filter, head, none, table } from "../parts.js";
import { moment, number } from "../words.js";

export const screen = ({ params }) => ({
  key: "audit", every: 5000, path: "audit",
  draw(records) {
    const low = (params.q ?? "").toLowerCase();
    const shown = records.filter((each) => `${each.who} ${each.action} ${each.target}`.toLowerCase().includes(low));
    return html`<section class="card">${head("Audit", filter("q", params.q, "who, action, target…"), 1)}<p class="soft">${number(records.length, "action")}, here and by command, newest first; the last thousand are kept for 90 days.</p>${shown.length ? table("Actions", [["When", "nowrap"], ["Who"], ["Action"], ["On what", "why"]], shown.map((each, at) => ({ key: `${each.at_ms} ${at}`, cells: [html`${moment(each.at_ms)} <small>${ago(each.at_ms)}</small>`, each.who, html`<b>${each.action}</b>`, html`<span class="mono">${each.target}</span>`] }))) : none(records.length ? "No action is like that." : "Nobody did anything yet.")}</section>`;
  },
});
