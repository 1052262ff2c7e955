// The confusion matrix: a table whose cells are links. Class names are set as text, never as HTML.

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const root = parentElement.querySelector(".confusion")
  root.replaceChildren(data.rows ? matrix(data) : pairs(data))

  root.onclick = event => {
    const cell = event.target.closest("a")
    const elsewhere = event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0
    if (!cell || elsewhere) return
    event.preventDefault()
    takeQuery(cell)
    setTriggerValue("opened", {
      label: Number(cell.dataset.label),
      predicted: Number(cell.dataset.predicted),
    })
  }
}

function matrix(data) {
  const table = element("table")
  table.append(element("caption", "", "Rows: true class. Columns: predicted class."))
  const head = element("tr")
  const corner = element("td")
  head.append(corner, ...data.classes.map(name => heading(name, "col")))
  const body = data.rows.map((cells, label) => {
    const row = element("tr")
    row.append(heading(data.classes[label], "row"), ...cells.map(cell => filled(cell, data)))
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

function filled(cell, data) {
  const node = element("td")
  if (cell.count === 0) {
    node.append(element("span", "none", "·"))
    return node
  }
  const right = cell.label === cell.predicted
  const link = opens(cell, data, cell.count.toLocaleString("en"))
  link.className = right ? "right" : "wrong"
  const strength = Math.sqrt(cell.count / (right ? data.most : data.mostWrong))
  link.style.setProperty("--strength", `${Math.round(8 + 46 * strength)}%`)
  node.append(link)
  return node
}

function pairs(data) {
  if (data.pairs.length === 0) return element("p", "", "No class is mistaken for another.")
  const list = element("ol")
  list.append(
    ...data.pairs.map(cell => {
      const entry = element("li")
      const names = `${data.classes[cell.label]} → ${data.classes[cell.predicted]}`
      const link = opens(cell, data, names)
      link.append(element("b", "", cell.count.toLocaleString("en")))
      entry.append(link)
      return entry
    }),
  )
  return list
}

function opens(cell, data, words) {
  const link = element("a", "", words)
  const [label, predicted] = [data.classes[cell.label], data.classes[cell.predicted]]
  link.href = cell.href
  link.dataset.label = cell.label
  link.dataset.predicted = cell.predicted
  link.title = `${cell.count.toLocaleString("en")} of class ${label} predicted as ${predicted}`
  link.setAttribute("aria-label", link.title)
  return link
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
