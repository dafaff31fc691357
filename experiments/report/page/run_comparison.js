
// Compares selected runs: curves, settings that differ, last metrics. Values from records are only ever text.
const MOST_LISTED = 100; // runs: words find the others
const { experiments, texts, steps } = contentOf("compare-runs");
const runs = experiments.flatMap(({ name, base, metrics, runs }) =>
  runs.map((run) => {
    const factors = run.factors.flatMap((key, at) => (at % 2 ? [] : [[texts[key], texts[run.factors[at + 1]]]]));
    const levels = [...factors.map((pair) => pair.join("=")), ...(run.diverged ? ["diverged"] : [])].join(" ");
    return { ...run, factors, name: levels, experiment: name, base, metrics, words: `${name} ${levels} ${run.id}`.toLowerCase() };
  }),
);
const selected = []; // in the order of selection
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const byId = (id) => document.getElementById(id);
const nameOf = (run) => `${run.experiment} ${run.name}`;

function settingsOf(run) {
  const found = new Map(run.base.map(([key, value]) => [texts[key], texts[value]]));
  for (let index = 0; index < run.set.length; index += 2) {
    const [key, value] = [texts[run.set[index]], run.set[index + 1]];
    if (value < 0) found.delete(key);
    else found.set(key, texts[value]);
  }
  return found;
}

function list() {
  const words = byId("filter").value.toLowerCase().split(/\s+/);
  const found = runs.filter((run) => words.every((word) => run.words.includes(word)));
  const items = found.slice(0, MOST_LISTED).map((run) => {
    const box = element("input", { type: "checkbox", checked: selected.includes(run) });
    box.addEventListener("change", () => select(run, box.checked));
    const label = element("label", {}, box, element("strong", { textContent: run.experiment }), ` ${run.name} `);
    label.append(element("code", { textContent: run.id }));
    return element("li", {}, label);
  });
  byId("runs").replaceChildren(...items);
  const more = found.length > MOST_LISTED ? `; the first ${MOST_LISTED} are listed` : "";
  byId("matches").textContent = `${found.length} of ${runs.length} runs found${more}.`;
}

function select(run, wanted) {
  if (wanted) selected.push(run);
  else selected.splice(selected.indexOf(run), 1);
  compare();
}

// Numbers of one row in one format: as many decimals as the most precise of them.
const decimals = (values) =>
  Math.max(0, ...values.filter(Number.isFinite).map((value) => (String(value).match(/^[^e]*\.(\d+)$/)?.[1] ?? "").length));
const written = (value, digits) =>
  value !== 0 && Math.abs(value) < 1e-6
    ? value.toExponential(1).replaceAll("-", "−")
    : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");

function fill(table, first, lines, cell, difference) {
  const heads = selected.map((run, index) => {
    const number = element("span", { className: "swatch", textContent: index + 1 });
    number.style.setProperty("--swatch", `var(--series-${(index % 8) + 1})`);
    return element("th", { scope: "col", className: cell }, number, ` ${nameOf(run)}`);
  });
  const head = element("tr", {}, element("th", { scope: "col", textContent: first }), ...heads);
  if (difference) head.append(element("th", { scope: "col", className: "figure", textContent: "2 − 1" }));
  const body = lines.map(([name, ...values]) => {
    const digits = decimals(values);
    const cells = values.map((value) => {
      const shown = typeof value === "number" ? written(value, digits) : (value ?? "–");
      return element("td", { textContent: shown, className: cell });
    });
    return element("tr", {}, element("th", { scope: "row", textContent: name }), ...cells);
  });
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

// Settings that differ; one with two keys, such as model.attention.update, by the shorter key.
function differences() {
  const all = selected.map(settingsOf);
  const keys = [...new Set(all.flatMap((settings) => [...settings.keys()]))];
  const lines = new Map(keys.map((key) => [key, all.map((settings) => settings.get(key))]));
  for (const [key, values] of lines) if (values.every((value) => value === values[0])) lines.delete(key);
  const same = (one, other) => other?.every((value, index) => value === one[index]);
  const shorter = (key) => key.split(".").map((_, index, parts) => parts.slice(index + 1).join("."));
  return [...lines].filter(([key, values]) => !shorter(key).some((other) => same(values, lines.get(other))));
}

function measures() {
  const names = [...new Set(selected.flatMap((run) => run.metrics))];
  return names
    .map((name) => [name, ...selected.map((run) => run.values[run.metrics.indexOf(name)] ?? null)])
    .filter(([, ...values]) => values.some((value) => value !== null))
    .sort((one, other) => one.filter((value) => value === null).length - other.filter((value) => value === null).length);
}

function compare() {
  const enough = selected.length > 1;
  byId("selected").hidden = !selected.length;
  byId("comparison").hidden = !enough;
  const chips = selected.map((run) => {
    const button = element("button", { type: "button", ariaLabel: `Remove ${nameOf(run)}` }, `${nameOf(run)} `);
    button.append(element("span", { ariaHidden: "true", textContent: "×" }));
    button.addEventListener("click", () => remove(run));
    return element("li", {}, button);
  });
  byId("selected").querySelector("ul").replaceChildren(...chips);
  if (!enough) {
    byId("compared").textContent = selected.length ? "Select one more run to compare." : "No runs selected.";
    return;
  }
  const settings = differences();
  const values = measures();
  const two = selected.length === 2;
  fill(byId("settings"), "setting", settings.map(([key, found]) => [key, ...found]), "", false);
  const minus = ([, a, b]) => (typeof a === "number" && typeof b === "number" ? Number((b - a).toPrecision(4)) : null);
  fill(byId("metrics"), "metric", values.map((line) => (two ? [...line, minus(line)] : line)), "figure", two);
  // A run without a curve becomes an invisible point, so that it keeps its colour.
  const curves = selected.flatMap((run, index) => {
    const points = run.loss.map((value, point) => ({ step: steps[run.steps][point], value }));
    return (points.length ? points : [{ step: null, value: null }]).map((point) => ({ run: `${index + 1} ${nameOf(run)}`, ...point }));
  });
  const holder = byId("compared-curves");
  const legend = { labelLimit: holder.clientWidth - 60 };
  show(holder, { ...contentOf("compare-spec"), datasets: { curves }, config: { legend } });
  byId("compared").textContent =
    `${selected.length} runs compared. Settings that differ: ${settings.length}; metrics: ${values.length}; ` +
    `learning curves: ${selected.filter((run) => run.loss.length).length}.`;
}

function remove(...gone) {
  for (const run of gone) selected.splice(selected.indexOf(run), 1);
  list();
  compare();
  byId("filter").focus(); // the pressed button no longer exists
}

if (runs.length) {
  byId("filter").addEventListener("input", list);
  byId("picker").addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => remove(...selected));
  list();
}
