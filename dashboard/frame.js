// Runs before the pages' own scripts, on every page.

// Streamlit looks for its server below the page's address first, and logs two 404s. Tell it.
window.__streamlit = { BACKEND_BASE_URL: location.origin + "BASE" };

// A click leaves the focus on its control, where arrow keys would go on being its own. Give the
// focus back, so that ← and → move to the previous and the next example. Fields keep it.
const CONTROLS = "button, summary, [role=radio], [role=slider], [role=option], input[type=radio], input[type=checkbox], input[type=range]";
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
  if (byPointer) [0, 100, 400].forEach((delay) => setTimeout(giveBack, delay));
}, true);

// On a phone, the menu covers the page: close it once a page was chosen.
document.addEventListener("click", (event) => {
  const menu = event.target.closest?.("a")?.closest("[data-testid=stSidebar]");
  if (menu && innerWidth <= 768) {
    setTimeout(() => menu.querySelector("[data-testid=stSidebarCollapseButton] button")?.click());
  }
}, true);
