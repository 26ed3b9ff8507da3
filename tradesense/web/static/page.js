// @ts-check
/** Small things that every part of the page does to elements. */

document.documentElement.dataset.theme = localStorage.theme ?? "auto"; // until the settings say it

/** @param {string} id @returns {any} */
export const at = (id) => document.getElementById(id);

/**
 * Show a figure; one that changes is lit for a moment.
 * @param {string} id @param {string} text @param {{direction?: string, value?: number | string | null}} [more]
 */
export function put(id, text, { direction, value } = {}) {
  const place = at(id);
  const known = place.dataset.shown !== undefined;
  if (known && place.textContent !== text) light(place);
  place.textContent = text;
  place.dataset.shown = "";
  if (value !== undefined) place.dataset.value = String(value);
  if (direction !== undefined) {
    place.classList.toggle("up", direction === "up");
    place.classList.toggle("down", direction === "down");
  }
}

/** @param {Element} place */
export function light(place) {
  place.classList.remove("changed");
  void (/** @type {HTMLElement} */ (place).offsetWidth); // begins the animation again
  place.classList.add("changed");
}

/**
 * @param {string} tag @param {Record<string, any>} [properties] @param {(Node | string)[]} [children]
 * @returns {any}
 */
export function made(tag, properties = {}, children = []) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Say how something went. @param {string} id @param {string} text @param {"" | "good" | "bad"} [how] */
export function say(id, text, how = "") {
  at(id).textContent = text;
  at(id).className = `said ${how}`;
}

/** Keep one button of a group pressed. @param {Element} group @param {Element} pressed */
export function press(group, pressed) {
  for (const button of group.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button === pressed));
}
