// The example under the mouse, shown beside its point of a map. The pictures come from the sprite
// sheets that the galleries use; all else is set as text, never as HTML.

const FIND_AFTER = 250 // ms between looks for the chart, which Streamlit draws on its own time
const LOOKS = 80
const GAP = 14

export default function (component) {
  const { data, parentElement } = component
  const panel = parentElement.querySelector(".map-preview")
  panel.hidden = true
  let looks = 0
  const find = () => {
    const charts = [...document.querySelectorAll(`.st-key-${data.chart} .js-plotly-plot`)]
    const chart = charts.find(one => one.on)
    if (chart) attach(chart, panel, data)
    else if (looks++ < LOOKS) timer = setTimeout(find, FIND_AFTER)
  }
  let timer = setTimeout(find, 0)
  return () => clearTimeout(timer)
}

// One listener for each chart; it reads the newest data.
function attach(chart, panel, data) {
  const before = chart.dataloupePreview
  chart.dataloupePreview = { panel, data }
  if (before) return
  chart.on("plotly_hover", event => show(event, chart.dataloupePreview))
  chart.on("plotly_unhover", () => (chart.dataloupePreview.panel.hidden = true))
  chart.on("plotly_selecting", () => (chart.dataloupePreview.panel.hidden = true))
}

function show(event, { panel, data }) {
  const found = event.points?.[0]?.customdata
  if (!found) return
  const [split, row, text] = found
  panel.replaceChildren()
  if (data.sheets) {
    const picture = document.createElement("div")
    const [sheet, cell] = [Math.floor(row / data.perSheet), row % data.perSheet]
    const [column, line] = [cell % data.columns, Math.floor(cell / data.columns)]
    picture.className = "picture"
    picture.style.width = picture.style.height = `${data.side}px`
    picture.style.backgroundImage = `url("${encodeURI(data.sheets[split].replace("{}", sheet))}")`
    picture.style.backgroundSize = `${data.columns * data.side}px auto`
    picture.style.backgroundPosition = `${-column * data.side}px ${-line * data.side}px`
    panel.append(picture)
  }
  const words = document.createElement("p")
  words.textContent = text
  panel.append(words)
  panel.hidden = false
  const { clientX, clientY } = event.event
  const size = panel.getBoundingClientRect()
  const right = clientX + GAP + size.width < window.innerWidth
  panel.style.left = `${right ? clientX + GAP : clientX - GAP - size.width}px`
  panel.style.top = `${Math.max(8, Math.min(clientY - 20, window.innerHeight - size.height - 8))}px`
}
