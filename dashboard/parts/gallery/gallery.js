// A gallery of examples: thumbnails cut from sprite sheets, excerpts of text, or both.
// Everything is set as text, never as HTML: labels and ids come from the user.

// State of a mounted gallery between two runs: the selection, where a range began, and the number
// of changes sent.
const states = new WeakMap()
const SEND_AFTER = 200 // ms, so that a quick series of keys is one change
const LOOK_AFTER = 350 // ms under the mouse
const GAP = 10 // px between a card and its enlarged view

export default function (component) {
  const { data, parentElement } = component
  const root = parentElement.querySelector(".gallery")
  const state = states.get(root) ?? begun(root)
  state.component = component
  build(root, state, data, parentElement.activeElement?.dataset?.row)
  // Changes sent after the server's response was made are newer than that response.
  if (data.change >= state.sent && state.timer === null) {
    state.sent = data.change
    state.chosen = new Set(data.selected)
  }
  mark(root, state)
  showMore(root)

  root.onclick = event => clicked(event, root, state)
  root.onkeydown = event => pressed(event, root, state)
  root.onpointerover = event => {
    const card = event.pointerType === "mouse" && event.target.closest("a.card")
    if (card && card !== state.looked) peek(card, root, state, LOOK_AFTER)
    state.looked = card
  }
  root.onpointerleave = () => {
    state.looked = null
    peek(null, root, state)
  }
}

function begun(root) {
  const state = { chosen: new Set(), sent: 0, shown: null, timer: null }
  states.set(root, state)
  root.addEventListener("focusin", event => {
    const card = event.target.closest("a.card")
    if (!card) return
    makeTabStop(card)
    const { compact, peeks } = state.component.data
    if ((compact || peeks) && card.matches(":focus-visible")) peek(card, root, state, 0)
  })
  root.addEventListener("focusout", event => {
    peek(null, root, state)
    // Whatever is pressed next is to find the selection as it is.
    if (!root.contains(event.relatedTarget)) send(state)
  })
  new ResizeObserver(() => showMore(root)).observe(root)
  return state
}

function build(root, state, data, focused) {
  const { change, selected, ...shown } = data
  const content = JSON.stringify(shown)
  if (content === state.shown) return
  state.shown = content
  state.anchor = null
  clearTimeout(state.peeking)
  const groups = element("div", "groups")
  groups.dataset.count = data.groups.length
  groups.append(...data.groups.map(group => section(group, data)))
  root.style.setProperty("--side-wide", `${data.side}px`)
  root.style.setProperty("--side-narrow", `${data.narrow}px`)
  root.classList.toggle("texts", data.text)
  root.classList.toggle("pairs", Boolean(data.text && data.sheets))
  root.classList.toggle("selectable", data.selectable)
  root.classList.toggle("compact", data.compact)
  root.replaceChildren(groups)
  if (focused !== undefined) root.querySelector(`a.card[data-row="${focused}"]`)?.focus()
}

function clicked(event, root, state) {
  if (event.target.matches("input.pick")) {
    toggle(event.target.closest("li").querySelector("a.card"), root, state)
    return
  }
  const card = event.target.closest("a.card")
  if (!card || event.ctrlKey || event.metaKey || event.button !== 0) return
  const { data, setTriggerValue } = state.component
  if (event.shiftKey && data.selectable) {
    event.preventDefault()
    window.getSelection()?.removeAllRanges()
    card.focus()
    extend(card, root, state, card)
  } else if (!event.shiftKey) {
    event.preventDefault()
    // Without a mouse, the first tap shows the picture enlarged and the second opens it.
    if (data.peeks && event.pointerType === "touch" && state.tapped !== card) {
      state.tapped = card
      peek(card, root, state, 0)
      return
    }
    setTriggerValue("opened", rowOf(card))
  }
}

function pressed(event, root, state) {
  const here = event.target.closest("a.card")
  if (!here || event.altKey) return
  const command = event.ctrlKey || event.metaKey
  const cards = [...here.closest("ul").querySelectorAll("a.card")]
  const to = command ? undefined : target(event.key, here, cards)
  if (to) {
    makeTabStop(to)
    to.focus()
    if (event.shiftKey) extend(to, root, state, here)
    else state.anchor = null
  } else if (event.key === "Escape" && root.querySelector(".peek")) peek(null, root, state)
  else if (!state.component.data.selectable) return
  else if (event.key === " " && !command) toggle(here, root, state)
  else if (event.key === "Escape" && state.chosen.size) choose(new Set(), root, state)
  else if (event.key === "a" && command) {
    choose(new Set([...state.chosen, ...cards.map(rowOf)]), root, state)
  } else return
  event.preventDefault()
  event.stopPropagation()
}

// --- selecting ---------------------------------------------------------------------------------

function rowOf(card) {
  return Number(card.dataset.row)
}

function toggle(card, root, state) {
  const chosen = new Set(state.chosen)
  if (!chosen.delete(rowOf(card))) chosen.add(rowOf(card))
  choose(chosen, root, state)
  begin(card, state)
}

// A range begins here; the earlier selection is kept.
function begin(card, state) {
  state.anchor = rowOf(card)
  state.before = new Set(state.chosen)
}

// Select from the start of the range (`from`, if it starts now) to this card.
function extend(card, root, state, from) {
  if (state.anchor === null) begin(from, state)
  const rows = [...card.closest("ul").querySelectorAll("a.card")].map(rowOf)
  const ends = [rows.indexOf(state.anchor), rows.indexOf(rowOf(card))].sort((a, b) => a - b)
  const range = rows.slice(Math.max(0, ends[0]), ends[1] + 1)
  choose(new Set([...state.before, ...range]), root, state)
}

function choose(chosen, root, state) {
  const { data } = state.component
  state.chosen = new Set([...chosen].slice(0, data.most))
  mark(root, state)
  clearTimeout(state.timer)
  state.timer = setTimeout(() => send(state), SEND_AFTER)
}

function send(state) {
  if (state.timer === null) return
  clearTimeout(state.timer)
  state.timer = null
  state.sent += 1
  const rows = [...state.chosen].sort((a, b) => a - b)
  state.component.setTriggerValue("selected", { number: state.sent, rows })
}

function mark(root, state) {
  root.classList.toggle("choosing", state.chosen.size > 0)
  for (const box of root.querySelectorAll("input.pick")) {
    const entry = box.closest("li")
    box.checked = state.chosen.has(rowOf(entry.querySelector("a.card")))
    entry.classList.toggle("chosen", box.checked)
  }
}

// --- enlarged view -----------------------------------------------------------------------------

// Show the card under the mouse enlarged, with its text; without captions, also the focused card.
function peek(card, root, state, after) {
  clearTimeout(state.peeking)
  root.querySelector(".peek")?.remove()
  if (!card) return
  state.peeking = setTimeout(() => {
    const { data } = state.component
    const panel = element("div", "peek")
    panel.setAttribute("aria-hidden", "true")
    if (data.sheets) {
      const side = data.natural ? Math.max(data.natural.width, data.natural.height) : data.large
      panel.style.setProperty("--side", `${side}px`)
      panel.append(data.natural ? naturally(card, data.natural) : enlarged(card))
    }
    panel.append(element("p", "", card.dataset.hint))
    if (state.tapped === card) panel.append(element("p", "tap", "Tap again to open"))
    root.append(panel)
    const [at, size] = [card.getBoundingClientRect(), panel.getBoundingClientRect()]
    const right = at.right + GAP + size.width < window.innerWidth
    const left = right ? at.right + GAP : Math.max(GAP, at.left - GAP - size.width)
    const top = Math.min(at.top, window.innerHeight - size.height - GAP)
    const from = root.getBoundingClientRect()
    panel.style.translate = `${left - from.left}px ${Math.max(GAP, top) - from.top}px`
  }, after)
}

// The thumbnail, larger: all that is stored of a small picture.
function enlarged(card) {
  const picture = element("div", "thumb")
  picture.style.cssText = card.querySelector(".thumb").style.cssText
  return picture
}

// The picture at the size that the models read.
function naturally(card, { url, width, height }) {
  const picture = element("img")
  Object.assign(picture, { src: url.replace("{}", card.dataset.row), alt: "", width, height })
  return picture
}

// --- drawing -----------------------------------------------------------------------------------

function section(group, data) {
  const part = element("section")
  if (group.sign) part.dataset.sign = group.sign
  if (group.title) {
    const header = element("header")
    if (group.sign) header.dataset.sign = group.sign
    const title = element("h2")
    if (group.sign) {
      const sign = element("span", "sign", { support: "+", oppose: "−", similar: "≈", a: "A", b: "B" }[group.sign])
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
      entry.append(card(item, place, group, data))
      if (data.text) entry.append(more(item, place))
      if (data.selectable) entry.append(pick(item))
      return entry
    }),
  )
  part.append(list)
  return part
}

// The labels of the cards: one bar, most frequent first, with the counts under it.
function makeup(group) {
  const words = group.makeup.map(([label, number]) => `${label} ${number}`)
  return strip("Labels", words.join(", "), group.makeup.map(([, number]) => number), 0, words)
}

// The cards' cumulative share of the total: one segment per card, the rest left empty.
function cumulative(group) {
  const sum = group.shares.reduce((total, share) => total + share, 0)
  const percent = 100 * sum
  const amount = percent >= 99.95 ? "100" : percent.toFixed(1)
  const words = `These ${group.shares.length} account for ${amount}% of ${group.whole}`
  return strip("Share", words, group.shares, Math.max(0, 1 - sum), [words])
}

function strip(name, text, parts, rest, words) {
  const node = element("div", "strip")
  const bar = element("div", `parts ${name.toLowerCase()}`)
  bar.setAttribute("role", "img")
  bar.setAttribute("aria-label", `${name}: ${text}`)
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

function card(item, place, group, data) {
  const node = element(item.href ? "a" : "div", data.text ? "card text" : "card")
  node.dataset.row = item.row
  node.dataset.hint = item.hint
  if (data.compact) node.setAttribute("aria-label", item.hint)
  else node.setAttribute("aria-description", item.hint)
  if (item.href) {
    node.href = item.href
    node.tabIndex = place === 0 ? 0 : -1
  }
  if (item.mark) node.dataset.mark = item.mark
  if (data.text) {
    if (data.sheets) node.append(thumbnail(item, place, group, data))
    node.append(...textCard(item))
    return node
  }
  node.append(thumbnail(item, place, group, data))
  if (data.compact) {
    if (item.wrong) node.append(element("span", "cross", "✕"))
    return node
  }
  if (item.bar !== undefined) node.append(bar(item))
  const caption = element("div", "caption")
  if (item.tag) caption.append(element("div", "tag", item.tag))
  if (item.score) caption.append(element("div", "score", item.score))
  caption.append(element("div", "name", item.name))
  if (item.note) {
    const note = element("div", item.wrong ? "note wrong" : "note")
    note.append(element("span", "", item.note), element("span", "aside", item.aside))
    caption.append(note)
  }
  if (item.file) caption.append(element("div", "file", item.file))
  node.append(caption)
  return node
}

function bar(item) {
  const node = element("div", "bar")
  const fill = element("i")
  fill.style.width = `${Math.max(2, 100 * item.bar)}%`
  node.append(fill)
  return node
}

function thumbnail(item, place, group, data) {
  const node = element("div", "thumb")
  // Cards are on separate sheets in the order shown, or on the sheets of all rows.
  const at = group.sheets ? place : item.row
  const [number, cell] = [Math.floor(at / data.perSheet), at % data.perSheet]
  const sheet = group.sheets ? group.sheets[number] : data.sheets.replace("{}", number)
  const [column, line] = [cell % data.columns, Math.floor(cell / data.columns)]
  node.style.backgroundImage = `url("${encodeURI(sheet)}")`
  node.style.backgroundSize = `calc(${data.columns} * var(--side)) auto`
  node.style.backgroundPosition = `calc(${-column} * var(--side)) calc(${-line} * var(--side))`
  if (!item.href) {
    node.setAttribute("role", "img")
    node.setAttribute("aria-label", item.hint)
  }
  return node
}

// The box in a card's corner. Space does the same on the card, so the Tab key skips the box.
function pick(item) {
  const box = element("input", "pick")
  box.type = "checkbox"
  box.tabIndex = -1
  box.setAttribute("aria-label", `Select ${item.hint}`)
  return box
}

// The card that an arrow key moves to, or the same one at an end. Only one card is a tab stop.
function target(key, here, cards) {
  const top = card => card.getBoundingClientRect().top
  const below = cards.findIndex(card => top(card) > top(cards[0]))
  const columns = below === -1 ? cards.length : below
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key]
  if (key === "Home") return cards[0]
  if (key === "End") return cards.at(-1)
  if (step === undefined) return undefined
  return cards[cards.indexOf(here) + step] ?? here
}

function makeTabStop(card) {
  for (const other of card.closest("ul").querySelectorAll('[tabindex="0"]')) other.tabIndex = -1
  const own = card.closest("li").querySelector(".more")
  for (const stop of own ? [card, own] : [card]) stop.tabIndex = 0
}

function element(tag, name = "", text = "") {
  const node = document.createElement(tag)
  if (name) node.className = name
  if (text) node.textContent = text
  return node
}
