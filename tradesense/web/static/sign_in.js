// @ts-check
/** Who is it? A thousand users, and none has a password. */

import { at, made, say } from "./page.js";
import { why } from "./forms.js";

const TRIES = 5;
const AGAIN_MS = 1000;

const dialog = at("sign-in");

/** Ask who it is, and reload as them. @param {{someone?: boolean, why?: string}} [now] Whether somebody is signed in. */
export function askWho({ someone = false, why = "" } = {}) {
  if (dialog.open) return;
  at("sign-out").hidden = at("stay").hidden = !someone;
  say("sign-in-said", why || " ", why ? "bad" : "");
  dialog.showModal();
  at("named").value = "";
  list();
}

/** Sign in. @param {number} userId @returns {Promise<boolean>} */
export async function signIn(userId) {
  try {
    const answer = await login(userId);
    if (!answer.ok) {
      const again = answer.headers.get("Retry-After");
      throw new Error(`${await why(answer)}${again ? `; again in ${again} s` : ""}`);
    }
    if ((await fetch("/api/me")).status === 401) {
      throw new Error("Your browser did not keep the cookie: some keep no Secure one over plain http://localhost. Use Chromium or Firefox, or put TLS in front.");
    }
    return true;
  } catch (problem) {
    say("sign-in-said", problem instanceof TypeError ? "The application does not answer." : /** @type {Error} */ (problem).message, "bad");
    return false;
  }
}

/** Redis may be starting, or busy: that is worth another try. @param {number} userId */
async function login(userId) {
  for (let tries = 1; ; tries++) {
    const answer = await fetch("/api/session", { method: "POST", body: JSON.stringify({ user_id: userId }), headers: { "Content-Type": "application/json" } });
    if (answer.status !== 503 || tries === TRIES) return answer;
    await new Promise((done) => setTimeout(done, AGAIN_MS));
  }
}

async function list() {
  const named = at("named").value;
  const answer = await fetch(`/api/people?named=${encodeURIComponent(named)}`).catch(() => null);
  if (!answer?.ok || named !== at("named").value) return;
  const people = await answer.json();
  at("people").replaceChildren(...people.map((/** @type {any} */ person) => {
    const initials = person.name.split(" ").map((/** @type {string} */ word) => word[0]).join("");
    const button = made("button", { type: "button" }, [
      made("span", { className: "initials", textContent: initials, ariaHidden: "true" }), person.name, made("small", { textContent: `${person.user_id}` }),
    ]);
    button.onclick = async () => (await signIn(person.user_id)) && location.reload();
    return made("li", {}, [button]);
  }));
  if (!people.length) at("people").replaceChildren(made("li", { className: "note", textContent: "Nobody of that name." }));
}

at("named").addEventListener("input", list);
at("named").addEventListener("keydown", (/** @type {KeyboardEvent} */ key) => {
  if (key.key !== "Enter") return;
  key.preventDefault();
  at("people").querySelector("button")?.click();
});
dialog.addEventListener("cancel", (/** @type {Event} */ event) => at("stay").hidden && event.preventDefault());
at("user").addEventListener("click", () => askWho({ someone: true }));
at("sign-out").addEventListener("click", async () => {
  await fetch("/api/session", { method: "DELETE" }).catch(() => null);
  location.reload();
});
