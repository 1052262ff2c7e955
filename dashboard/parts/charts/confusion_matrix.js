// The confusion matrix: a table whose cells are links. Class names are set as text, never as HTML.

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const root = parentElement.querySelector(".confusion")
  root.replaceChildren(...(data.rows ? [matrix(data)] : data.lists.map(list)))

  root.onclick = event => {
    const cell = event.target.closest("a")
    const elsewhere = event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0
    if (!cell || elsewhere) return
    event.preventDefault()
    setTriggerValue("opened", Number(cell.dataset.cell))
  }
}

function matrix(data) {
  const table = element("table")
  table.append(element("caption", "", "Rows: true class; columns: predicted class. Shares of each true class."))
  const head = element("tr")
  const corner = element("td")
  const named = data.classes.map(name => heading(name, "col"))
  head.append(corner, ...named, heading("Recall", "col"), heading("Examples", "col"))
  const body = data.rows.map((cells, label) => {
    const row = element("tr")
    const filled = cells.map((cell, predicted) => square(cell, label === predicted))
    const { shown, of } = data.recall[label]
    const recall = element("td", "total")
    recall.append(element("b", "", shown))
    row.append(heading(data.classes[label], "row"), ...filled, recall, element("td", "total", of))
    return row
  })
  table.append(head, ...body)
  return table
}

function heading(name, scope) {
  const node = element("th")
  node.scope = scope
  node.title = name
  node.append(element("span", "", name))
  return node
}

function square(cell, right) {
  const node = element("td")
  if (cell.count === 0) {
    node.append(element("span", "none", "·"))
    return node
  }
  const link = opens(cell, cell.shown)
  link.className = right ? "right" : "wrong"
  const strength = Math.sqrt(cell.share) // one scale for all cells
  link.style.setProperty("--strength", `${Math.round(8 + 42 * strength)}%`)
  node.append(link)
  return node
}

function list({ title, cells }) {
  const part = element("section")
  part.append(element("h3", "", title))
  if (cells.length === 0) {
    part.append(element("p", "", "No class is confused with another."))
    return part
  }
  const entries = element("ol")
  entries.append(
    ...cells.map(cell => {
      const entry = element("li")
      const link = opens(cell, "")
      link.append(element("span", "", cell.words), element("b", "", cell.count.toLocaleString("en")))
      entry.append(link)
      return entry
    }),
  )
  part.append(entries)
  return part
}

function opens(cell, words) {
  const link = element("a", "", words)
  link.href = cell.href
  link.dataset.cell = cell.cell
  link.title = cell.hint
  link.setAttribute("aria-label", cell.hint)
  return link
}

function element(tag, name = "", text = "") {
  const node = document.createElement(tag)
  if (name) node.className = name
  if (text) node.textContent = text
  return node
}
