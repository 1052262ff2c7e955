// A gallery of examples: thumbnails cut from sprite sheets, or excerpts of text.
// Everything shown is set as text, never as HTML: labels and ids are the user's.

const SHEET_COLUMNS = 16

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const root = parentElement.querySelector(".gallery")
  const focused = parentElement.activeElement?.dataset?.row
  const groups = element("div", "groups")
  groups.dataset.count = data.groups.length
  groups.append(...data.groups.map(group => section(group, data)))
  root.style.setProperty("--side-wide", `${data.side}px`)
  root.style.setProperty("--side-narrow", `${data.narrow}px`)
  root.classList.toggle("texts", data.text)
  root.replaceChildren(groups)

  root.onclick = event => {
    const card = event.target.closest("a.card")
    const elsewhere = event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0
    if (!card || elsewhere) return
    event.preventDefault()
    takeQuery(card)
    setTriggerValue("opened", Number(card.dataset.row))
  }
  root.onkeydown = event => move(event)
  root.onfocusin = event => {
    const card = event.target.closest("a.card")
    if (card) makeTabStop(card)
  }
  if (focused !== undefined) root.querySelector(`a.card[data-row="${focused}"]`)?.focus()
}

function section(group, data) {
  const part = element("section")
  if (group.sign) part.dataset.sign = group.sign
  if (group.title) {
    const header = element("header")
    if (group.sign) header.dataset.sign = group.sign
    const title = element("h2")
    if (group.sign) {
      const sign = element("span", "sign", { support: "+", oppose: "−", similar: "≈" }[group.sign])
      sign.setAttribute("aria-hidden", "true")
      title.append(sign)
    }
    title.append(group.title)
    header.append(title, element("p", "", group.words))
    if (group.makeup.length) header.append(makeup(group))
    if (group.shares.length) header.append(cumulative(group))
    part.append(header)
  }
  if (group.items.length === 0) {
    part.append(element("div", "empty", group.empty))
    return part
  }
  const list = element("ul")
  list.setAttribute("role", "list")
  list.setAttribute("aria-label", group.name)
  list.append(
    ...group.items.map((item, place) => {
      const entry = element("li")
      entry.append(card(item, data, place === 0))
      return entry
    }),
  )
  part.append(list)
  return part
}

// Which labels the cards have: one bar, most frequent first, with its numbers under it.
function makeup(group) {
  const words = group.makeup.map(([label, number]) => `${label} ${number}`)
  return strip("Labels", words.join(", "), group.makeup.map(([, number]) => number), 0, words)
}

// How much of the whole the cards carry together: a segment each, the rest left empty.
function cumulative(group) {
  const sum = group.shares.reduce((total, share) => total + share, 0)
  const percent = 100 * sum
  const amount = percent >= 99.95 ? "100" : percent.toFixed(1)
  const words = `These ${group.shares.length} carry ${amount}% of ${group.whole}`
  return strip("Share", words, group.shares, Math.max(0, 1 - sum), [words])
}

function strip(name, told, parts, rest, words) {
  const node = element("div", "strip")
  const bar = element("div", `parts ${name.toLowerCase()}`)
  bar.setAttribute("role", "img")
  bar.setAttribute("aria-label", `${name}: ${told}`)
  for (const part of parts) {
    const segment = element("i")
    segment.style.flexGrow = part
    bar.append(segment)
  }
  if (rest > 0) {
    const empty = element("i", "rest")
    empty.style.flexGrow = rest
    bar.append(empty)
  }
  const legend = element("div", "legend")
  legend.setAttribute("aria-hidden", "true")
  legend.append(...words.map(word => element("span", "", word)))
  node.append(bar, legend)
  return node
}

function card(item, data, first) {
  const node = element(item.href ? "a" : "div", data.text ? "card text" : "card")
  node.dataset.row = item.row
  node.title = item.hint
  if (item.href) {
    node.href = item.href
    node.tabIndex = first ? 0 : -1
  }
  node.append(data.text ? element("div", "excerpt", item.text) : thumbnail(item, data))
  if (item.bar !== undefined) {
    const bar = element("div", "bar")
    const fill = element("i")
    fill.style.width = `${Math.max(2, 100 * item.bar)}%`
    bar.append(fill)
    node.append(bar)
  }
  const caption = element("div", "caption")
  if (item.mark) node.dataset.mark = item.mark
  if (item.tag) caption.append(element("div", "tag", item.tag))
  if (item.score) caption.append(element("div", "score", item.score))
  caption.append(element("div", "name", item.name))
  if (item.note) {
    const note = element("div", item.wrong ? "note wrong" : "note")
    note.append(element("span", "", item.note), element("span", "aside", item.aside))
    caption.append(note)
  }
  node.append(caption)
  return node
}

function thumbnail(item, data) {
  const node = element("div", "thumb")
  const [column, row] = [item.cell % SHEET_COLUMNS, Math.floor(item.cell / SHEET_COLUMNS)]
  node.style.backgroundImage = `url("${encodeURI(item.sheet)}")`
  node.style.backgroundSize = `calc(${SHEET_COLUMNS} * var(--side)) auto`
  node.style.backgroundPosition = `calc(${-column} * var(--side)) calc(${-row} * var(--side))`
  if (!item.href) {
    node.setAttribute("role", "img")
    node.setAttribute("aria-label", item.hint)
  }
  return node
}

// Arrow keys move between cards; only one card is a stop of the tab key.
function move(event) {
  const here = event.target.closest("a.card")
  if (!here || event.ctrlKey || event.metaKey || event.altKey) return
  const cards = [...here.closest("ul").querySelectorAll("a.card")]
  const top = cards[0].offsetTop
  const below = cards.findIndex(card => card.offsetTop > top)
  const columns = below === -1 ? cards.length : below
  const at = cards.indexOf(here)
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key]
  let to = step === undefined ? at : at + step
  if (event.key === "Home") to = 0
  else if (event.key === "End") to = cards.length - 1
  else if (step === undefined) return
  event.preventDefault()
  event.stopPropagation()
  const target = cards[to]
  if (target) {
    makeTabStop(target)
    target.focus()
  }
}

function makeTabStop(card) {
  for (const other of card.closest("ul").querySelectorAll('a.card[tabindex="0"]')) other.tabIndex = -1
  card.tabIndex = 0
}

function element(tag, name = "", text = "") {
  const node = document.createElement(tag)
  if (name) node.className = name
  if (text) node.textContent = text
  return node
}

// To open another page Streamlit pushes the new query on this page first, then the new page. With
// the query in place already it pushes once, and one step back leads here again.
function takeQuery(link) {
  const { pathname } = window.location
  if (link.pathname !== pathname) window.history.replaceState({}, "", pathname + link.search)
}
