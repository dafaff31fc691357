// Draws the charts from the specifications in the page and saves them as files. Colours on the page are variables of
// its style sheet, so a change of theme needs no redrawing; saved charts have the colours of the light theme.
const contentOf = (id) => JSON.parse(document.getElementById(id).textContent);
const { config, light } = contentOf("chart-config");
const OPTIONS = {
  mode: "vega-lite",
  renderer: "svg",
  actions: false,
  ast: true, // expressions are interpreted: the page's policy forbids eval
  tooltip: { theme: "page" },
};
const drawn = new Map(); // holder of a chart to its specification

// A faceted chart has as many columns of panels as fit.
function fitted(holder, spec) {
  const panel = spec.usermeta?.panelWidth;
  return panel ? { ...spec, columns: Math.max(1, Math.floor(holder.clientWidth / panel)) } : spec;
}

async function show(holder, spec) {
  try {
    drawn.set(holder, spec);
    await vegaEmbed(holder, fitted(holder, spec), { ...OPTIONS, config });
    holder.style.minHeight = "";
  } catch (error) {
    holder.textContent = `This chart could not be drawn: ${error.message}`;
    console.error(error);
  }
}

// A chart in folded details has no width, so it is drawn when they open.
async function draw(root = document) {
  for (const holder of root.querySelectorAll(".chart[data-spec]")) {
    if (!drawn.has(holder) && !holder.closest("details:not([open])")) await show(holder, contentOf(holder.dataset.spec));
  }
}

async function save(holder, format) {
  const text = JSON.stringify({ spec: drawn.get(holder), config: { ...config, background: "var(--paper)" } });
  const chosen = JSON.parse(text.replace(/var\((--[\w-]+)\)/g, (variable, name) => light[name] ?? variable));
  const stage = document.body.appendChild(document.createElement("div"));
  stage.className = "stage"; // has the same width on every screen
  const { view, finalize } = await vegaEmbed(stage, chosen.spec, { ...OPTIONS, config: chosen.config });
  const url =
    format === "png"
      ? await view.toImageURL("png", 2)
      : URL.createObjectURL(new Blob([await view.toSVG()], { type: "image/svg+xml" }));
  Object.assign(document.createElement("a"), { href: url, download: `${holder.dataset.name}.${format}` }).click();
  finalize();
  stage.remove();
}

document.addEventListener("click", ({ target }) => {
  const format = target.dataset?.save;
  if (format) save(target.closest("figure").querySelector(".chart"), format);
  if (target.closest(".bar a")) target.closest(".bar").open = false;
});
document.addEventListener("toggle", ({ target }) => target.open && draw(target), true); // toggle does not bubble

// A link into folded details opens them.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let details = target.closest("details"); details; details = details.parentElement.closest("details")) details.open = true;
  target.scrollIntoView();
}
window.addEventListener("hashchange", reveal);

// Everything folded is printed open, and folded again afterwards.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
  draw();
});
window.addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});

draw().then(() => {
  document.documentElement.dataset.charts = "drawn";
  if (location.hash) reveal(); // the charts above it have moved it
});
