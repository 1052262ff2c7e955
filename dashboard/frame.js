// Runs before the pages' own scripts, on every page.

// Streamlit looks for its server below the page's address first, and logs two 404s. Tell it.
window.__streamlit = { BACKEND_BASE_URL: location.origin + "BASE" };

// --- the address: one entry of the history a click ----------------------------------------------

// What goes along to every page.
const STATE = "STATE";
const push = history.pushState.bind(history);
const replace = history.replaceState.bind(history);

// Streamlit pushes an entry for every change of the address, and two to open a page. Only the first
// after a click or a key becomes an entry; the others belong to it, or are defaults.
let acted = false;
// Since the history was followed nothing was pressed: what Streamlit pushes belongs to that page. If
// it is of another page, Back or Forward has left that one meanwhile, and its entry is not this one.
let followed = false;
for (const kind of ["pointerup", "click", "keydown", "change", "drop"]) {
  addEventListener(kind, () => { acted = true; followed = false; }, true);
}
history.pushState = (state, title, to) => {
  const target = new URL(to, location.href);
  if (target.href === location.href) return;
  if (followed && target.pathname !== location.pathname) return;
  (acted ? push : replace)(state, title, to);
  acted = false;
};

// Streamlit follows the history at once. Controls that are not drawn yet as of the last step would
// then pass for changed by a person, and write their old value into the address: wait for them.
const LONGEST_WAIT = 3000; // ms
let waiting = null;
function follow() {
  const since = performance.now();
  const step = () => {
    const state = document.querySelector("[data-testid=stApp]")?.dataset.testScriptState;
    if (state !== "notRunning" && performance.now() - since < LONGEST_WAIT) {
      waiting = setTimeout(step, 30);
    } else dispatchEvent(Object.assign(new PopStateEvent("popstate"), { waited: true }));
  };
  clearTimeout(waiting);
  step();
}
addEventListener("popstate", (event) => {
  acted = false;
  followed = true;
  if (event.waited) return;
  event.stopImmediatePropagation();
  follow();
}, true);

// The page that a link opens, with the state of this view; null if it leads elsewhere.
function pageOf(link) {
  const inside = link?.href && link.origin === location.origin && !link.download && !link.target;
  if (!inside || link.pathname.slice("BASE".length).lastIndexOf("/") > 0) return null;
  const to = new URL(link.href);
  const here = new URLSearchParams(location.search);
  // The header was drawn before the latest change of this page; cards leave the selection out.
  const names = link.closest(".dl-bar, .dl-pages, .dl-trust") ? STATE : ["selected", "selected_train"];
  for (const name of names) {
    if (names !== STATE && to.searchParams.has(name)) continue;
    if (here.has(name)) to.searchParams.set(name, here.get(name));
    else if (names === STATE) to.searchParams.delete(name);
  }
  return to;
}

function linkOf(event) {
  return event.composedPath().find((node) => node.matches?.("a[href]"));
}

// A new tab opens the same as a click.
for (const kind of ["pointerdown", "focusin"]) {
  addEventListener(kind, (event) => {
    const link = linkOf(event);
    const to = pageOf(link);
    if (to) link.href = to.href;
  }, true);
}

// Open a page without loading everything again: Streamlit follows the history.
addEventListener("click", (event) => {
  const link = linkOf(event);
  if (event.defaultPrevented || event.button !== 0 || !link?.closest(".stApp")) return;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  link.closest("details")?.removeAttribute("open");
  const to = pageOf(link);
  if (!to) return;
  event.preventDefault();
  visit(to);
});

function visit(to) {
  const app = document.querySelector("[data-testid=stApp]");
  if (app?.dataset.testConnectionState !== "CONNECTED") return location.assign(to.href);
  if (to.href !== location.href) push({}, "", to.href);
  follow();
  document.querySelector("[data-testid=stMain]")?.scrollTo(0, 0);
}

// --- menus, and what Streamlit gets wrong -------------------------------------------------------

// What follows Streamlit's changes of the page.
let tidying = false;
new MutationObserver(() => {
  if (tidying) return;
  tidying = true;
  requestAnimationFrame(() => {
    tidying = false;
    // Popovers, tooltips and the palette are beside the app, and get no color scheme from it.
    const app = document.querySelector(".stApp");
    if (app) document.documentElement.style.colorScheme = getComputedStyle(app).colorScheme;
    // The place to drop files is called presentational, and named: screen readers get both.
    const dropzones = "[data-testid=stFileUploaderDropzone][role=presentation]";
    for (const one of document.querySelectorAll(dropzones)) one.setAttribute("role", "group");
  });
}).observe(document, { childList: true, subtree: true });

// A menu closes with Escape, and with a click beside it.
function closeMenus(except) {
  for (const menu of document.querySelectorAll("details.dl-menu[open]")) {
    if (menu !== except) menu.removeAttribute("open");
  }
}
document.addEventListener("click", (event) => closeMenus(event.target.closest?.("details.dl-menu")));
document.addEventListener("keydown", (event) => event.key === "Escape" && closeMenus(null));
