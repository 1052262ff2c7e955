// --- text cards -----------------------------------------------------------------------------------
// Part of gallery.js. A title of id and numbers, the label, and two lines of the text; a button
// shows more of it. Every name and text has its own direction, so none turns around another.

function textCard(item) {
  const parts = []
  const head = element("div", "head")
  head.append(isolated("span", "id", item.title ?? item.note))
  const number = item.score ?? item.aside
  if (number) head.append(element("span", item.score ? "score" : "aside", number))
  parts.push(head)

  const line = element("div", "line")
  if (item.name) line.append(isolated("span", "name", item.name))
  if (item.note && item.note !== item.title) {
    line.append(isolated("span", item.wrong ? "note wrong" : "note", item.note))
  }
  if (item.score && item.aside) line.append(element("span", "aside", item.aside))
  if (line.childElementCount) parts.push(line)

  if (item.bar !== undefined) parts.push(bar(item))
  const excerpt = isolated("div", "excerpt", "")
  for (const [text, marked] of item.parts ?? [[item.text, false]]) {
    excerpt.append(marked ? element("mark", "", text) : text)
  }
  if (item.rest) excerpt.append(element("span", "rest", ` … ${item.rest}`))
  parts.push(excerpt)
  if (item.tag) parts.push(isolated("div", "tag", item.tag))
  return parts
}

// The button after a card that shows the rest of its text. Tab moves to it from its own card.
function more(item, place) {
  const button = element("button", "more", "More")
  button.type = "button"
  button.hidden = true
  button.tabIndex = place === 0 || !item.href ? 0 : -1
  button.setAttribute("aria-expanded", "false")
  button.setAttribute("aria-label", `More of ${item.title ?? item.note}`)
  button.onclick = () => {
    const open = button.closest("li").classList.toggle("open")
    button.textContent = open ? "Less" : "More"
    button.setAttribute("aria-expanded", String(open))
    button.setAttribute("aria-label", `${open ? "Less" : "More"} of ${item.title ?? item.note}`)
  }
  return button
}

// Only texts that two lines cannot hold have something more to show; that changes with the width.
function showMore(root) {
  for (const button of root.querySelectorAll("button.more")) {
    const entry = button.closest("li")
    if (entry.classList.contains("open")) continue
    const excerpt = entry.querySelector(".excerpt")
    button.hidden = excerpt.scrollHeight <= excerpt.clientHeight + 2
  }
}

function isolated(tag, name, text) {
  const node = element(tag, name, text)
  node.dir = "auto"
  return node
}
