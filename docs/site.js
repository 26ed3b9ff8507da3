// What the theme makes at run time, for those who see no page: tables that are wider than a phone scroll by keyboard, too;
// the copy buttons of two blocks have two names; a column without a heading has none that says nothing.
const reachable = () => {
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((each) => (each.tabIndex = 0));
  document.querySelectorAll(".md-code__nav").forEach((each, at) => (each.ariaLabel = `Block ${at + 1}`));
  document.querySelectorAll("th:empty").forEach((each) => each.replaceWith(document.createElement("td")));
};
new MutationObserver(reachable).observe(document.documentElement, { childList: true, subtree: true });
reachable();
