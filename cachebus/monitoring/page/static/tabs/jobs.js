// Jobs: late and failed ones first; the last twenty runs of each; run, pause for a while, resume.

import { html } from "../dom.js";
import { ago, button, chip, due, fact, filter, head, none, serverNow, shared, signIn, table } from "../parts.js";
import { href } from "../route.js";
import { clock, count, moment, number, span } from "../words.js";

const busy = (job) => ["claimed", "running"].includes(job.state);
const rank = (job) => (job.late_since !== null ? 0 : job.outcome === "failed" ? 1 : job.paused ? 3 : 2);

export function screen({ noun, params }) {
  return {
    key: `jobs ${noun}`, every: 2500, path: "jobs",
    draw(jobs) {
      if (jobs === null) return none("Not known while Redis is unavailable.");
      if (noun) return one(noun, jobs.find(({ name }) => name === noun));
      const text = (params.q ?? "").toLowerCase();
      const shown = jobs.filter(({ name }) => name.toLowerCase().includes(text)).sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
      const late = jobs.filter((job) => job.late_since !== null).length, failed = jobs.filter((job) => job.outcome === "failed").length;
      return html`<section class="card">${head("Jobs", filter("q", params.q, "filter jobs"), 1)}<p class="soft">${number(jobs.length, "job")}, ${count(late)} late, ${count(failed)} failed the last time.</p>${signIn("run or pause one")}
${shown.length ? table("Jobs", [["Job", "name"], ["Fires"], ["State"], ["Last 20 runs"], ["Last", "num"], ["Took", "num less"], ["Next", "num"], ["Missed", "num less"], ["Overlapped", "num less"], ["", "acts"]], shown.map(row)) : none(jobs.length ? "No job is like that." : "No worker has announced a job.")}</section>`;
    },
    forms: {
      async until({ until }, act) {
        const minutes = Math.ceil((new Date(until) - serverNow()) / 60_000);
        if (!(minutes > 0)) throw new Error("Choose a moment to come.");
        await act("jobs/pause", { name: noun, paused: true, minutes });
      },
    },
  };
}

const row = (job) => ({ key: job.name, kind: job.late_since !== null ? "bad" : job.outcome === "failed" ? "warn" : "", cells: [
  html`<a class="mono" href="${href("jobs", job.name)}">${job.name}</a>`, job.when, state(job), ticks(job),
  job.finished === null ? "–" : ago(job.finished / 1000), job.finished === null ? "–" : span(job.duration_ms), next(job), count(job.misfires), count(job.overlaps), acts(job),
] });

function state(job) {
  const failed = job.outcome === "failed" ? html` <small>${job.error.trim().split("\n").at(-1)}</small>` : "";
  if (job.paused) return html`${chip("warn", "paused")} ${job.paused_until ? html`<small>until ${moment(job.paused_until / 1000)}</small>` : ""}`;
  if (job.late_since !== null) return html`${chip("bad", "late")} <small>due ${ago(job.late_since / 1000)}</small>${failed}`;
  if (busy(job)) return html`${chip("ok", job.state === "claimed" ? "waits for its moment" : "runs")} <small>${job.progress} on ${job.holder}</small>`;
  if (job.outcome === "failed") return html`${chip("bad", "failed")}${failed}`;
  return job.outcome ? chip("ok", job.outcome) : chip("", "not yet");
}

const next = (job) => (job.next_us === null ? "–" : due(job.next_us / 1000));

function ticks(job) {
  const runs = [...job.history].reverse(), failed = runs.filter(({ outcome }) => outcome !== "done").length;
  if (!runs.length) return html`<span class="soft">none yet</span>`;
  return html`<span class="ticks" role="img" aria-label="${number(runs.length, "run")}, ${count(failed)} not done">${runs.map((run) => html`<i class="${run.outcome === "done" ? "" : run.outcome === "failed" ? "failed" : "other"}" title="${clock(run.finished / 1000, true)} ${run.outcome} in ${span(run.duration_ms)}"></i>`)}</span>`;
}

function acts(job) {
  const pause = (label, minutes) => button(label, "jobs/pause", { name: job.name, paused: true, minutes });
  return html`${button("Run now", "jobs/run", { name: job.name })}${job.paused ? button("Resume", "jobs/pause", { name: job.name, paused: false }) : html`${pause("Pause 1 h", 60)}${pause("Pause", 0)}`}`;
}

function one(name, job) {
  if (!job) return html`<section class="card">${head(name, "", 1)}${none("There is no job of this name.")}</section>`;
  const line = (run) => ({ key: run.finished, kind: run.outcome === "failed" ? "bad" : "", cells: [moment(run.finished / 1000), chip(run.outcome === "done" ? "ok" : "bad", run.outcome), span(run.duration_ms), html`<span class="mono">${run.holder}</span>`, run.error] });
  return html`<p class="crumb"><a href="${href("jobs")}">Jobs</a> /</p><section class="card">${head(html`<span class="mono">${name}</span>`, html`${state(job)}${acts(job)}`, 1)}
<dl class="facts">${fact("fires", job.when)}${fact("next", next(job))}${fact("runs", count(job.runs))}${fact("missed", count(job.misfires))}${fact("overlapped", count(job.overlaps))}${fact("died", count(job.deaths))}${job.holder ? fact("last on", html`<span class="mono">${job.holder}</span>`) : ""}</dl>
${shared.me.admin && !job.paused ? html`<form data-form="until"><label>Pause until <input type="datetime-local" name="until" required></label><button>Pause</button></form>` : ""}
<h2 class="sub">Last runs</h2>${job.history.length ? table("Last runs", [["Ended"], ["Outcome"], ["Took", "num"], ["Worker", "name"], ["Error", "why"]], job.history.map(line)) : none("None yet.")}${job.error ? html`<h2 class="sub">Last error</h2><pre tabindex="0" aria-label="Last error">${job.error}</pre>` : ""}</section>`;
}
