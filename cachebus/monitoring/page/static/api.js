// Talking to the server: one question at a time and tab, each with a deadline.

const LOOK_MS = 8000;
export const ACT_MS = 60_000;

class Refused extends Error {
  constructor(status, why) { super(why); this.status = status; }
}

/** Ask for what `page/api/` has; with a body it is done. Throws: Refused, and what `fetch` throws. */
export async function ask(path, body, deadline = body === undefined ? LOOK_MS : ACT_MS) {
  const doing = body !== undefined;
  const options = doing ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) } : {};
  const response = await fetch(`page/api/${path}`, { cache: "no-store", signal: AbortSignal.timeout(deadline), ...options });
  const said = await response.json().catch(() => ({ error: `the server answers ${response.status}` }));
  if (!response.ok) throw new Refused(response.status, said.error);
  return said;
}

/** {name: "a b", none: ""} -> "?name=a%20b" */
export function query(wanted) {
  const given = Object.entries(wanted).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `?${given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&")}` : "";
}
