// Draws the charts from the specifications in the page. Colours are the style sheet's, so a change of theme needs nothing.
"use strict";

const contentOf = (id) => JSON.parse(document.getElementById(id).textContent);

async function draw() {
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true, // expressions are interpreted: the page's policy forbids eval
    config: contentOf("chart-config"),
    tooltip: { theme: "page" },
  };
  for (const holder of document.querySelectorAll(".chart")) {
    try {
      await vegaEmbed(holder, contentOf(holder.dataset.spec), options);
    } catch (error) {
      holder.textContent = `This chart could not be drawn: ${error.message}`;
      console.error(error);
    }
  }
  document.documentElement.dataset.charts = "drawn";
}

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
