// Draws the charts from the specifications in the page and saves them as pictures. On the page colours are the style
// sheet's, so a change of theme needs nothing; a saved picture has those of the light theme.
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

async function show(holder, spec) {
  try {
    drawn.set(holder, spec);
    await vegaEmbed(holder, spec, { ...OPTIONS, config });
  } catch (error) {
    holder.textContent = `This chart could not be drawn: ${error.message}`;
    console.error(error);
  }
}

async function draw() {
  for (const holder of document.querySelectorAll(".chart[data-spec]")) await show(holder, contentOf(holder.dataset.spec));
  document.documentElement.dataset.charts = "drawn";
}

async function save(holder, format) {
  const text = JSON.stringify({ spec: drawn.get(holder), config: { ...config, background: "var(--paper)" } });
  const chosen = JSON.parse(text.replace(/var\((--[\w-]+)\)/g, (variable, name) => light[name] ?? variable));
  const stage = document.body.appendChild(document.createElement("div"));
  stage.className = "stage"; // as wide on every screen
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
});

// Paper cannot be clicked: what is folded is printed open, and folded again.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
window.addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});

draw();
