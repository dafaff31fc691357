
// Compares levels of one experiment: a table of means over seeds that sorts and filters, and curves with the range over
// seeds. The address keeps the choice. Uses what run_comparison.js has read and defines.
const { students, goals } = contentOf("compare-levels");
const MOST_DRAWN = 8; // levels in the chart
const choice = { experiment: "", metric: "", words: "", sort: "", down: false };

// Mean and 95 % interval by Student's t, as the ledger's; no interval below two seeds.
function estimate(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
  const half = values.length > 1 ? (students[values.length] * spread) / Math.sqrt(values.length) : NaN;
  return { mean, half };
}

// The runs of the chosen experiment by their levels, without the seed.
function levels() {
  const found = new Map();
  for (const run of runs.filter((run) => run.experiment === choice.experiment)) {
    const own = run.factors.filter(([name]) => name !== "seed");
    const key = own.map((pair) => pair.join("=")).join(" ") || run.experiment;
    const value = run.values[run.metrics.indexOf(choice.metric)];
    if (!found.has(key)) found.set(key, { key, factors: new Map(own), runs: [], values: [] });
    found.get(key).runs.push(run);
    if (typeof value === "number") found.get(key).values.push(value);
  }
  const words = choice.words.toLowerCase().split(/\s+/);
  return [...found.values()]
    .filter(({ key }) => words.every((word) => key.toLowerCase().includes(word)))
    .map((level) => ({ ...level, seeds: level.values.length, ...estimate(level.values) }));
}

function sorted(found) {
  const { sort, down } = choice;
  const value = (level) => (["seeds", "mean"].includes(sort) ? level[sort] : (level.factors.get(sort) ?? ""));
  const compare = (one, other) =>
    typeof one === "number" ? (Number.isNaN(one) ? 1 : Number.isNaN(other) ? -1 : one - other) : one.localeCompare(other, "en", { numeric: true });
  return [...found].sort((one, other) => (down ? -1 : 1) * compare(value(one), value(other)));
}

function heading(name, title, cell = "") {
  const button = element("button", { type: "button", textContent: title });
  button.addEventListener("click", () => {
    Object.assign(choice, { down: choice.sort === name && !choice.down, sort: name });
    tabulate();
  });
  const chosen = choice.sort === name;
  const made = element("th", { scope: "col", className: cell }, button);
  made.ariaSort = chosen ? (choice.down ? "descending" : "ascending") : "none";
  return made;
}

// The mean learning curve of a level, and the range of its runs, at the steps that they share.
function curvesOf(level) {
  const drawn = level.runs.filter((run) => run.steps >= 0);
  const points = new Map();
  for (const run of drawn) {
    run.loss.forEach((value, index) => {
      const step = steps[run.steps][index];
      if (value !== null) points.set(step, [...(points.get(step) ?? []), value]);
    });
  }
  return [...points]
    .filter(([, values]) => values.length === drawn.length)
    .map(([step, values]) => {
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      return { level: level.key, step, mean, low: Math.min(...values), high: Math.max(...values) };
    });
}

function tabulate(remembered = true) {
  const found = sorted(levels());
  const names = [...new Set(found.flatMap((level) => [...level.factors.keys()]))];
  const digits = decimals(found.map((level) => Number(level.mean.toPrecision(4))));
  const number = (value) => (Number.isFinite(value) ? written(value, digits) : "–");
  const head = element("tr", {}, ...names.map((name) => heading(name, name)), heading("seeds", "seeds", "figure"));
  head.append(heading("mean", choice.metric, "figure"), element("th", { scope: "col", className: "figure", textContent: "95 % interval" }));
  const body = found.map((level) => {
    const cells = names.map((name) => element("td", { textContent: level.factors.get(name) ?? "–" }));
    const interval = Number.isFinite(level.half) ? `${number(level.mean - level.half)} to ${number(level.mean + level.half)}` : "–";
    const figures = [String(level.seeds), number(level.mean), interval].map((text) => element("td", { className: "figure", textContent: text }));
    return element("tr", {}, ...cells, ...figures);
  });
  byId("levels-table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
  const shown = found.slice(0, MOST_DRAWN);
  const curves = shown.flatMap(curvesOf);
  byId("levels-figure").hidden = !curves.length;
  if (curves.length) {
    const holder = byId("levels-curves");
    show(holder, { ...contentOf("levels-spec"), datasets: { curves }, config: { legend: { labelLimit: holder.clientWidth - 60 } } });
  }
  const goal = goals[choice.metric];
  byId("levels-count").textContent =
    `${found.length} levels of ${choice.experiment}${goal ? `; ${choice.metric}: ${goal}` : ""}.` +
    (found.length > MOST_DRAWN ? ` The chart has the first ${MOST_DRAWN}.` : "");
  if (remembered) history.replaceState(null, "", `#levels?${new URLSearchParams(choice)}`);
}

// The metrics of an experiment, its main one first.
function offerMetrics() {
  const { metrics } = experiments.find(({ name }) => name === choice.experiment);
  byId("levels-metric").replaceChildren(...metrics.map((name) => element("option", { value: name, textContent: name })));
  if (!metrics.includes(choice.metric)) choice.metric = metrics[0];
  byId("levels-metric").value = choice.metric;
}

// What is chosen anew is sorted with the best first.
function choose(changed, remembered = true) {
  Object.assign(choice, changed);
  offerMetrics();
  if ("words" in changed) return tabulate();
  Object.assign(choice, { sort: "mean", down: (goals[choice.metric] ?? "").startsWith("higher") });
  tabulate(remembered);
}

function restore() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.split("?")[1]));
  if (!experiments.some(({ name }) => name === given.experiment)) return;
  choose({ ...given, words: given.words ?? "", down: given.down === "true" });
  byId("levels-experiment").value = choice.experiment;
  byId("levels-filter").value = choice.words;
  byId("levels").scrollIntoView();
}

if (runs.length) {
  const listed = experiments.filter(({ runs }) => runs.length);
  byId("levels-experiment").append(...listed.map(({ name }) => element("option", { value: name, textContent: name })));
  byId("levels-experiment").addEventListener("change", ({ target }) => choose({ experiment: target.value }));
  byId("levels-metric").addEventListener("change", ({ target }) => choose({ metric: target.value }));
  byId("levels-filter").addEventListener("input", ({ target }) => choose({ words: target.value }));
  byId("levels-form").addEventListener("submit", (event) => event.preventDefault());
  choose({ experiment: listed[0].name }, false);
  if (location.hash.startsWith("#levels?")) restore();
}
