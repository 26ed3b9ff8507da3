// Browsers: every open socket by user, topic and gateway; a user's sessions; who is disconnected.

import { query } from "../api.js";
import { html } from "../dom.js";
import { ago, button, chip, head, none, older, table } from "../parts.js";
import { href } from "../route.js";
import { count, number, span } from "../words.js";

export const screen = ({ params }) => {
  const { user = "", topic = "", gateway = "" } = params;
  return {
    key: "browsers", every: 4000, path: `browsers${query({ user, topic, gateway })}`,
    draw: (data) => html`<section class="card">${head("Browsers", "", 1)}<form data-form="look"><input name="user" value="${user}" aria-label="User" placeholder="user id" autocomplete="off"><input name="topic" value="${topic}" aria-label="Topic" placeholder="topic, whole" autocomplete="off" spellcheck="false"><input name="gateway" value="${gateway}" aria-label="Gateway" placeholder="gateway" autocomplete="off" spellcheck="false"><button>Show</button></form>
${gateways(data)}<h2>${number(data.matching, "socket")}${user || topic || gateway ? " like that" : ""}</h2>${user ? html`<div class="acts">${button(`Disconnect user ${user}`, "browsers/disconnect", { user }, { title: `Disconnect all sockets of user ${user}?`, text: "Their browsers come back, if they are still signed in.", yes: "Disconnect" })}</div>` : ""}${sockets(data)}</section>
<div class="pair">${topics(data)}${sessions(data, user)}</div>`,
    forms: { look: (fields) => { location.hash = href("browsers", "", Object.fromEntries(Object.entries(fields).map(([name, text]) => [name, text.trim()]))); } },
  };
};

const gateways = ({ gateways: found }) => html`<p class="soft">${found.length ? found.map((each) => html`<a class="mono" href="${href("browsers", "", { gateway: each.process })}">${each.process}</a> ${count(each.sockets)}${each.answered ? "" : html` ${chip("warn", "does not answer")} as of ${span(each.reported_ms_ago)} ago`} · `) : "No gateway is at work."}</p>`;

function sockets({ sockets: found, matching }) {
  const row = ({ gateway, socket }) => ({ key: `${gateway} ${socket.user} ${socket.since_ms} ${socket.last}`, cells: [
    html`<a href="${href("browsers", "", { user: socket.user })}">${socket.user}</a>`,
    html`${socket.topics.map((topic) => html`<a class="topic" href="${href("browsers", "", { topic })}">${topic}</a> `)}${socket.more_topics ? html`<span class="soft">+${count(socket.more_topics)} more</span>` : ""}`,
    html`<span class="mono">${gateway}</span>`, count(socket.queued), html`<span class="mono">${socket.last || "–"}</span>`, ago(socket.since_ms),
    button("Disconnect", "browsers/disconnect", { user: socket.user }, { title: `Disconnect all sockets of user ${socket.user}?`, text: "Their browsers come back, if they are still signed in.", yes: "Disconnect" }),
  ] });
  return html`${found.length ? table("Open sockets", [["User", "name"], ["Topics"], ["Gateway"], ["Queue", "num"], ["Last id", "less"], ["Since", "num"], ["", "acts"]], found.map(row)) : none("No socket is open.")}${older(matching - found.length)}`;
}

const topics = ({ topics: found }) => html`<section class="card">${head("Topics followed most")}${Object.keys(found).length ? table("Topics", [["Topic", "name"], ["Sockets", "num"]], Object.entries(found).map(([topic, many]) => ({ key: topic, cells: [html`<a class="mono" href="${href("browsers", "", { topic })}">${topic}</a>`, count(many)] }))) : none("No topic is followed.")}</section>`;

function sessions({ sessions: found }, user) {
  if (found === null) return "";
  const row = (each) => ({ key: each.ref, cells: [each.ip ?? "–", (each.agent ?? "–").slice(0, 80), ago(each.since_ms), ago(each.seen_ms)] });
  const end = found.length ? button(`End all ${count(found.length)}`, "sessions/end", { user }, { title: `End all sessions of user ${user}?`, text: "They are logged out everywhere at once.", yes: "End them" }) : "";
  return html`<section class="card">${head(`Sessions of user ${user}`, end)}${found.length ? table("Sessions", [["Address", "name"], ["Browser", "why"], ["Since", "num"], ["Seen", "num"]], found.map(row)) : none("No live session.")}</section>`;
}
