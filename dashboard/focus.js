// --- the focus: kept where a rerun draws its control anew -----------------------------------------

// A click leaves the focus on its control, where arrow keys would go on being its own. Give the
// focus back, so that ← and → move to the previous and the next example. Fields keep it.
const CONTROLS = "button, summary, [role=radio], [role=slider], [role=option], input[type=radio], input[type=checkbox], input[type=range]";
let givingBack = [];
document.addEventListener("click", (event) => {
  const byPointer = event.detail > 0;
  const chosen = event.target.closest?.("[role=option]") !== null;
  const giveBack = () => {
    const focused = document.activeElement;
    if (focused?.matches(CONTROLS) || (chosen && focused?.matches("[role=combobox]"))) {
      if (!focused.closest("dialog, [role=dialog], [data-testid=stPopoverBody]")) focused.blur();
    }
  };
  // Some controls take the focus once more when they are drawn again.
  if (byPointer) givingBack = [0, 100, 400].map((delay) => setTimeout(giveBack, delay));
}, true);
// But what is clicked next keeps the focus: the list of a field that opens again stays open.
document.addEventListener("pointerdown", () => givingBack.forEach(clearTimeout), true);

// "Skip to content" moves the focus to the title of the page.
function focusTitle() {
  const title = document.querySelector("[data-testid=stMain] h1, [data-testid=stMain] h2");
  title?.setAttribute("tabindex", "-1");
  title?.focus();
}
document.addEventListener("click", (event) => {
  if (event.target.closest?.(".dl-skip")) focusTitle();
});

// A rerun may remove the control that was pressed, and the focus with it: the next Tab would begin at
// the top of the page. Remember where the focus is and, by keyboard, give it to what takes its place:
// the same control drawn anew, else its neighbor, else the title of the page.
const STOPS = "a[href], button, input, select, textarea, summary, [tabindex='0']";
const SETTLED = 200; // ms without a run
let key = null; // pressed last; null after the mouse
let last = null;

addEventListener("keydown", (event) => { key = event.key; }, true);
addEventListener("pointerdown", () => { key = last = null; }, true);

addEventListener("focusin", (event) => {
  const node = event.composedPath()[0];
  if (node.matches?.("[data-testid=stMain] :is(h1, h2)")) return;
  last = { node, blocks: blocksOf(node), name: nameOf(node), path: location.pathname };
}, true);

// Tab leads from the last control of the page to the browser's own.
addEventListener("focusout", () => {
  setTimeout(() => { if (key === "Tab" && last && unfocused() && canHold(last.node)) last = null; });
}, true);

// The containers with a key around a control, the closest first, and its place among their controls.
function blocksOf(node) {
  const found = [];
  let block = (node.getRootNode().host ?? node).closest?.("[class*=st-key-]");
  for (; block; block = block.parentElement?.closest("[class*=st-key-]")) {
    const key = [...block.classList].find((name) => name.startsWith("st-key-"));
    found.push({ key, place: stops(block).indexOf(node) });
  }
  return found;
}

// The controls within a block, and within the components in it.
function stops(block) {
  if (!block) return [];
  const hosts = [...block.querySelectorAll("*")].filter((node) => node.shadowRoot);
  return [block, ...hosts.map((host) => host.shadowRoot)].flatMap((root) => [...root.querySelectorAll(STOPS)]);
}

function nameOf(node) {
  return `${node.tagName} ${node.dataset?.row ?? node.getAttribute?.("aria-label") ?? node.textContent}`;
}

function canHold(node) {
  return node.isConnected && !node.disabled && node.checkVisibility();
}

// A control that was disabled has the focus until the next frame is drawn, and then loses it unseen.
function unfocused() {
  const focused = document.activeElement;
  return focused === document.body || focused === null || focused.disabled === true;
}

// The control that had the focus, or what takes its place; null if nothing does.
function successor() {
  if (canHold(last.node)) return last.node;
  if (last.path !== location.pathname) return null;
  for (const { key, place } of last.blocks) {
    const found = stops(document.querySelector(`.${CSS.escape(key)}`)).filter(canHold);
    const same = found.find((node) => nameOf(node) === last.name);
    if (found.length) return same ?? found[Math.min(Math.max(place, 0), found.length - 1)];
  }
  return stops(document.body).find((node) => canHold(node) && nameOf(node) === last.name);
}

let idleSince = null;
let looking = false;
function lookAfterFocus() {
  looking = key !== null && last !== null && unfocused();
  if (!looking) return;
  const state = document.querySelector("[data-testid=stApp]")?.dataset.testScriptState;
  idleSince = state === "notRunning" ? idleSince ?? performance.now() : null;
  successor()?.focus();
  if (unfocused() && idleSince !== null && performance.now() - idleSince > SETTLED) focusTitle();
  setTimeout(lookAfterFocus, 50);
}
new MutationObserver(() => {
  if (looking) return;
  looking = true;
  idleSince = null;
  setTimeout(lookAfterFocus, 50); // a disabled control loses the focus a moment later
}).observe(document, { childList: true, subtree: true, attributeFilter: ["disabled"] });
