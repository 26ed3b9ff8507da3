// Locks and limits: who holds what since when and who waits; who has used how much.

import { query } from "../api.js";
import { html } from "../dom.js";
import { button, filter, head, none, signIn, table } from "../parts.js";
import { count, number, share, span } from "../words.js";

export const screen = ({ params }) => {
  const name = params.name ?? "", low = name.toLowerCase();
  return {
    key: "limits", every: 3000, path: `limits${query({ name })}`,
    draw({ locks, limits, complete, answered, walked_ms_ago }) {
      if (locks === null) return none("Not known while Redis is unavailable.");
      const held = locks.filter((lock) => lock.name.toLowerCase().includes(low)), used = limits.filter(({ key }) => key.toLowerCase().includes(low));
      const lock = (each) => ({ key: each.name, kind: each.waiting ? "warn" : "", cells: [html`<span class="mono">${each.name}</span>`, html`<b>${each.owner}</b>`, span(each.held_ms), span(each.left_ms), each.waiting ? number(each.waiting, "waits", "wait") : "nobody", html`<span class="mono">${each.token}</span>`, button("Release", "locks/unlock", { name: each.name, token: each.token }, { title: `Take lock ${each.name} away?`, text: `${each.owner} may be at work until it notices. Whoever waits first has the lock next.`, yes: "Release" })] });
      const full = (each) => each.limit !== null && each.used >= each.limit;
      const limit = (each) => ({ key: each.counter, kind: each.refused ? "bad" : full(each) ? "warn" : "", cells: [html`<span class="mono">${each.key}</span>`, each.strategy, each.used === null ? "–" : count(each.used), each.limit === null ? "–" : `${count(each.limit)} in ${span(each.window_ms)}`, each.limit === null || each.used === null ? "–" : share(Math.min(each.used, each.limit), each.limit), each.refused === null ? "–" : count(each.refused), each.left_ms < 0 ? "–" : span(each.left_ms)] });
      const told = answered ? `limits and refusals as ${number(answered, "process", "processes")} told within ten seconds` : "limits and refusals are asked of the processes, which answer within ten seconds";
      return html`<section class="card">${head("Locks", filter("name", name, "lock or limit"), 1)}${signIn("release one")}${held.length ? table("Locks", [["Lock", "name"], ["Held by"], ["Since", "num"], ["Lease ends in", "num"], ["In line"], ["Fencing", "num"], ["", "acts"]], held.map(lock)) : none(name ? "No lock of this name is held." : "Nobody holds a lock.")}</section>
<section class="card">${head("Rate limits", html`<span class="soft">the most refused and the busiest${complete ? "" : " of the first 200,000 keys"}; counted ${span(walked_ms_ago)} ago; ${told}</span>`)}${used.length ? table("Rate limits", [["Who", "name"], ["Strategy"], ["Used", "num"], ["Limit", "num"], ["Of it", "num"], ["Refused / min", "num"], ["Ends in", "num"]], used.map(limit)) : none("Nothing is being counted.")}</section>`;
    },
  };
};
