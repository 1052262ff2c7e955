
// --- the command palette: Ctrl K ----------------------------------------------------------------

// A dialog with a list that follows what is typed (the combobox pattern of ARIA). All is set as
// text, never as HTML: names come from the user.
const MOST_SHOWN = 14;
const TYPING = 120; // ms
const palette = { dialog: null, offers: [], at: 0, asked: 0, timer: null };

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function openPalette() {
  if (palette.dialog?.open) return palette.dialog.close();
  if (!palette.dialog) buildPalette();
  const app = document.querySelector(".stApp");
  palette.dialog.style.fontFamily = app ? getComputedStyle(app).fontFamily : "";
  palette.field.value = "";
  palette.dialog.showModal();
  ask();
}

function buildPalette() {
  palette.field = make("input", {
    type: "text", role: "combobox", "aria-expanded": "true", "aria-controls": "dl-offers",
    "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false", maxlength: "200",
    "aria-label": "Find a page, an example, a class or a saved set",
    placeholder: "Page, id, #row, class or saved set",
  });
  palette.list = make("ul", { role: "listbox", id: "dl-offers", "aria-label": "Found" });
  palette.none = make("p", { role: "status" });
  palette.dialog = make("dialog", { class: "dl-palette", "aria-label": "Find" },
    palette.field, palette.list, palette.none);
  document.body.append(palette.dialog);
  palette.field.addEventListener("input", () => {
    clearTimeout(palette.timer);
    palette.timer = setTimeout(ask, TYPING);
  });
  palette.dialog.addEventListener("keydown", paletteKey);
  palette.dialog.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) take(Number(option.dataset.place));
    else if (event.target === palette.dialog) palette.dialog.close();
  });
}

async function ask() {
  const number = ++palette.asked;
  let found = [];
  try {
    const query = new URLSearchParams({ typed: palette.field.value });
    found = await (await fetch(`${"BASE"}/dataloupe/find?${query}`)).json();
  } catch { /* The server is gone or refuses: nothing is found. */ }
  if (number !== palette.asked) return;
  palette.offers = found.slice(0, MOST_SHOWN);
  palette.at = 0;
  palette.list.replaceChildren(...palette.offers.map((offer, place) =>
    make("li", { role: "option", id: `dl-offer-${place}`, "data-place": place, "aria-selected": "false" },
      make("span", {}, offer.title), make("small", {}, offer.kind))));
  palette.none.textContent = found.length ? "" : "Nothing is called so.";
  choose(0);
}

function choose(place) {
  const options = palette.list.children;
  options[palette.at]?.setAttribute("aria-selected", "false");
  palette.at = (place + options.length) % Math.max(1, options.length);
  const chosen = options[palette.at];
  chosen?.setAttribute("aria-selected", "true");
  chosen?.scrollIntoView({ block: "nearest" });
  if (chosen) palette.field.setAttribute("aria-activedescendant", chosen.id);
  else palette.field.removeAttribute("aria-activedescendant");
}

function paletteKey(event) {
  event.stopPropagation();
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) choose(palette.at + step);
  else if (event.key === "Enter") take(palette.at);
  else return;
  event.preventDefault();
}

// Open the offer with the state of this view, but for what it sets or leaves out.
function take(place) {
  const offer = palette.offers[place];
  if (!offer) return;
  palette.dialog.close();
  const to = new URL(offer.address, location.origin + "BASE/");
  const here = new URLSearchParams(location.search);
  for (const name of STATE) {
    if (here.has(name) && !to.searchParams.has(name) && !offer.without.includes(name)) {
      to.searchParams.set(name, here.get(name));
    }
  }
  visit(to);
}

document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey)) return;
  if (event.shiftKey || event.altKey) return;
  event.preventDefault();
  event.stopPropagation();
  openPalette();
}, true);
document.addEventListener("click", (event) => {
  if (event.target.closest?.(".dl-find")) openPalette();
});
