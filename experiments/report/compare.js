
// Picks runs and compares them: curves, settings that differ, last metrics. What comes from records is only ever text.
const LISTED = 100; // runs at a time: who wants others finds them by a word
const { experiments, texts, steps } = contentOf("compare-runs");
const runs = experiments.flatMap(({ name, base, metrics, runs }) =>
  runs.map((run) => ({ ...run, experiment: name, base, metrics, words: `${name} ${run.name} ${run.id}`.toLowerCase() })),
);
const picked = []; // in the order they were picked in
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const at = (id) => document.getElementById(id);
const called = (run) => `${run.experiment} ${run.name}`;

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
  const words = at("filter").value.toLowerCase().split(/\s+/);
  const found = runs.filter((run) => words.every((word) => run.words.includes(word)));
  const items = found.slice(0, LISTED).map((run) => {
    const box = element("input", { type: "checkbox", checked: picked.includes(run) });
    box.addEventListener("change", () => pick(run, box.checked));
    const label = element("label", {}, box, element("strong", { textContent: run.experiment }), ` ${run.name} `);
    label.append(element("code", { textContent: run.id }));
    return element("li", {}, label);
  });
  at("runs").replaceChildren(...items);
  const more = found.length > LISTED ? `; the first ${LISTED} are listed` : "";
  at("matches").textContent = `${found.length} of ${runs.length} runs found${more}.`;
}

function pick(run, wanted) {
  if (wanted) picked.push(run);
  else picked.splice(picked.indexOf(run), 1);
  compare();
}

function fill(table, first, lines, cell, difference) {
  const heads = picked.map((run, index) => {
    const number = element("span", { className: "swatch", textContent: index + 1 });
    number.style.setProperty("--swatch", `var(--series-${(index % 8) + 1})`);
    return element("th", { scope: "col", className: cell }, number, ` ${called(run)}`);
  });
  const head = element("tr", {}, element("th", { scope: "col", textContent: first }), ...heads);
  if (difference) head.append(element("th", { scope: "col", className: "figure", textContent: "2 − 1" }));
  const body = lines.map(([name, ...values]) => {
    const cells = values.map((value) => {
      const shown = typeof value === "number" ? number(value) : (value ?? "–");
      return element("td", { textContent: shown, className: cell });
    });
    return element("tr", {}, element("th", { scope: "row", textContent: name }), ...cells);
  });
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 9 }).replace("-", "−");

// Settings that differ; of one that is written in two places, such as model.attention.update, the shorter key.
function differences() {
  const all = picked.map(settingsOf);
  const keys = [...new Set(all.flatMap((settings) => [...settings.keys()]))];
  const lines = new Map(keys.map((key) => [key, all.map((settings) => settings.get(key))]));
  for (const [key, values] of lines) if (values.every((value) => value === values[0])) lines.delete(key);
  const same = (one, other) => other?.every((value, index) => value === one[index]);
  const shorter = (key) => key.split(".").map((_, index, parts) => parts.slice(index + 1).join("."));
  return [...lines].filter(([key, values]) => !shorter(key).some((other) => same(values, lines.get(other))));
}

function measures() {
  const names = [...new Set(picked.flatMap((run) => run.metrics))];
  return names
    .map((name) => [name, ...picked.map((run) => run.values[run.metrics.indexOf(name)] ?? null)])
    .filter(([, ...values]) => values.some((value) => value !== null))
    .sort((one, other) => one.filter((value) => value === null).length - other.filter((value) => value === null).length);
}

function compare() {
  const enough = picked.length > 1;
  at("picked").hidden = !picked.length;
  at("comparison").hidden = !enough;
  const chips = picked.map((run) => {
    const button = element("button", { type: "button", ariaLabel: `Remove ${called(run)}` }, `${called(run)} `);
    button.append(element("span", { ariaHidden: "true", textContent: "×" }));
    button.addEventListener("click", () => drop(run));
    return element("li", {}, button);
  });
  at("picked").querySelector("ul").replaceChildren(...chips);
  if (!enough) {
    at("compared").textContent = picked.length ? "Pick one more run to compare." : "Nothing is compared yet.";
    return;
  }
  const settings = differences();
  const values = measures();
  const two = picked.length === 2;
  fill(at("settings"), "setting", settings.map(([key, found]) => [key, ...found]), "", false);
  const minus = ([, a, b]) => (typeof a === "number" && typeof b === "number" ? Number((b - a).toPrecision(4)) : null);
  fill(at("metrics"), "metric", values.map((line) => (two ? [...line, minus(line)] : line)), "figure", two);
  // A run without a curve is a point that is not drawn, so that its colour stays its own.
  const curves = picked.flatMap((run, index) => {
    const points = run.loss.map((value, place) => ({ step: steps[run.steps][place], value }));
    return (points.length ? points : [{ step: null, value: null }]).map((point) => ({ run: `${index + 1} ${called(run)}`, ...point }));
  });
  const holder = at("compared-curves");
  const legend = { labelLimit: holder.clientWidth - 60 };
  show(holder, { ...contentOf("compare-spec"), datasets: { curves }, config: { legend } });
  at("compared").textContent =
    `${picked.length} runs compared. Settings that differ: ${settings.length}; metrics: ${values.length}; ` +
    `learning curves: ${picked.filter((run) => run.loss.length).length}.`;
}

function drop(...gone) {
  for (const run of gone) picked.splice(picked.indexOf(run), 1);
  list();
  compare();
  at("filter").focus(); // the button that was pressed is gone
}

if (runs.length) {
  at("filter").addEventListener("input", list);
  at("picker").addEventListener("submit", (event) => event.preventDefault());
  at("clear").addEventListener("click", () => drop(...picked));
  list();
}
