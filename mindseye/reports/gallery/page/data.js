// ---- data: what the page shows, and how it is said -----------------------------------------------------------------
// All of it was read from files. It reaches the page as text and as attributes set one by one, never as markup.

const readBlock = (id) => JSON.parse(document.getElementById(id).textContent);
const byId = (id) => document.getElementById(id);

const DATA = readBlock("overview");
// Of a folder of several sweeps, all runs, or those of the one that the address names, with axes of its own.
const SWEEP = DATA.sweeps.find(({ name }) => name === new URLSearchParams(location.hash.slice(1)).get("sweep")) ?? null;
const RUNS = (SWEEP?.runs ?? DATA.runs.map((_, i) => i)).map((block, i) => ({ ...DATA.runs[block], at: SWEEP?.at[i] ?? DATA.runs[block].at, block }));
const MEASURES = DATA.measures;
const SAME_SCALE = !DATA.terms.some((term) => term.unlike); // where one run dwarfs the others, each has its own

let sharedBlock = null;
const shared = () => (sharedBlock ??= readBlock("shared"));

const detailBlocks = new Map();
function detailsOf(run) {
  if (!detailBlocks.has(run)) detailBlocks.set(run, readBlock(`run-${RUNS[run].block}`));
  return detailBlocks.get(run);
}

// Axes: every swept setting, the facet, and the picture, from the nearest photograph over the steps to the end.
const LAST = "visualisation";
const stepOf = (file) => Number(file.slice(0, -".webp".length));

const FACETS = Math.max(0, ...RUNS.map((run) => run.facets.length));
const isNumber = (text) => text !== "" && Number.isFinite(Number(text));
const SWEPT = (SWEEP?.axes ?? DATA.axes).map((axis) => ({ ...axis, numeric: axis.values.every(isNumber) }));
const AXES = [
  ...SWEPT,
  { key: "facet", values: Array.from({ length: Math.max(1, FACETS) }, (_, c) => String(c)), numeric: true },
  { key: "picture", values: (SWEEP ?? DATA).pictures, numeric: true },
];
const axisOf = (key) => AXES.find((axis) => axis.key === key) ?? null;
const PICTURES = axisOf("picture").values;

const runsByPlace = new Map(RUNS.map((run, index) => [run.at.join(), index]));

// A place is an index on each axis, by key; a cell is what is there: {run, facet, picture}, run -1 where nothing is.
function cellAt(place) {
  const run = runsByPlace.get(SWEPT.map((axis) => place[axis.key]).join()) ?? -1;
  return { run, facet: place.facet, picture: place.picture };
}

function placeOf(cell) {
  const place = { facet: cell.facet, picture: cell.picture };
  SWEPT.forEach((axis, i) => (place[axis.key] = RUNS[cell.run].at[i]));
  return place;
}

const facetOf = (cell) => (cell.run < 0 ? null : (RUNS[cell.run].facets[cell.facet] ?? null));

const folderOf = (cell) => `${RUNS[cell.run].href}/facets/${String(cell.facet).padStart(2, "0")}`;

// Where a cell's picture is, relative to this page; null where there is none. `clear`: with its transparency, if it has one.
function sourceOf(cell, { clear = false } = {}) {
  const facet = facetOf(cell);
  if (!facet) return null;
  const name = PICTURES[cell.picture], folder = folderOf(cell);
  if (clear && hasTransparency(cell)) return `${folder}/transparency.webp`;
  const kinds = { "nearest photograph": "nearest", "initial image": "initial", [LAST]: "visualization" };
  if (name in kinds) return facet.pictures.includes(kinds[name]) ? `${folder}/${kinds[name]}.png` : null;
  const file = DATA.steps[facet.steps].find((one) => `step ${stepOf(one)}` === name);
  return file ? `${folder}/steps/${file}` : null;
}

// Of the visualisation alone there is one: it is the sum of what every step has pulled at.
const hasTransparency = (cell) => Boolean(facetOf(cell)?.transparency) && PICTURES[cell.picture] === LAST;
const ANY_TRANSPARENCY = RUNS.some((run) => run.facets.some((facet) => facet?.transparency));

const measureIndex = (name) => MEASURES.findIndex((measure) => measure.name === name);
// A cell's measure is that of its visualisation: cells are sorted and filtered by it, whatever picture is shown.
function ownMeasure(cell, index) {
  return facetOf(cell)?.measures[index] ?? null;
}

// The same, or over seeds where they are folded away.
function measureOf(cell, index) {
  if (state.folded && cell.run >= 0) return foldedOf(cell, index, state.view === "ranking").mean;
  return ownMeasure(cell, index);
}

// What belongs to the picture shown: the nearest photograph and the initial image are baselines with figures of their
// own, the steps on the way were not measured.
const BASELINES = { "nearest photograph": "nearest", "initial image": "initial" };
function measureOfPicture(cell, index, of = measureOf) {
  const name = PICTURES[cell.picture];
  if (name === LAST) return of(cell, index);
  if (!facetOf(cell) || !(name in BASELINES)) return null;
  return detailsOf(cell.run).baselines[cell.facet]?.[BASELINES[name]]?.[index] ?? null;
}

// The least and the largest of every measure in the whole sweep: what bounds and colours go over. Bars begin at 0.
const SCALES = MEASURES.map((_, i) => {
  let low = Infinity, high = -Infinity;
  for (const run of RUNS)
    for (const facet of run.facets) {
      const value = facet?.measures[i];
      if (value === null || value === undefined) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  return low <= high ? { low, high } : null;
});

const spoken = (name) => name.replace(/[._]/g, " ");
const BETTER = { larger: "larger is better", smaller: "smaller is better", "near 1": "nearest to 1 is best" };
const better = (measure) => BETTER[measure.better] ?? "";

// What to sort by: the more the better, also where the measure itself counts the other way.
function quality(measure, value) {
  if (measure.better === null) return 0; // neither is better: cells stay in their order
  if (measure.better === "near 1") return -Math.abs(value - 1);
  return measure.better === "smaller" ? -value : value;
}

// Three digits that people read at a glance; thousands and more without a point.
function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1).replace("e+", "e").replace("-", "−");
  return (size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(size < 0.1 && size ? 4 : 3)).replace("-", "−");
}

const valueLabel = (axis, index) => axis.values[index] ?? "";
function describe(place, keys) {
  return keys
    .filter((key) => axisOf(key))
    .map((key) => (key === "picture" ? valueLabel(axisOf(key), place[key]) : `${key} ${valueLabel(axisOf(key), place[key])}`))
    .join(" · ");
}

// An element. `text` is text; every other setting is an attribute.
function make(tag, settings = {}, children = []) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (value === null || value === undefined) continue;
    if (name === "text") element.textContent = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// A picture, or in its place the reason why there is none. The reason is text.
function picture(cell, { eager = false, clear = false } = {}) {
  const source = sourceOf(cell, { clear });
  if (source === null) return reasonTile(cell);
  const image = make("img", { alt: "", decoding: "async", loading: eager ? "eager" : "lazy", draggable: "false" });
  image.addEventListener("error", () => image.replaceWith(make("p", { class: "why", text: "This picture cannot be read." })), { once: true });
  image.src = source;
  return image;
}

function reasonTile(cell) {
  const tile = make("p", { class: "why", dir: "auto" });
  if (cell.run < 0) {
    tile.classList.add("absent");
    tile.textContent = "not in this sweep";
    return tile;
  }
  const run = RUNS[cell.run];
  tile.classList.add(run.status.replaceAll(" ", "-"));
  const said = whyOf(cell);
  tile.append(make("b", { text: said.word }), make("span", { text: said.reason, dir: "auto" }));
  return tile;
}

function whyOf(cell) {
  const run = RUNS[cell.run];
  if (run.status !== "completed") {
    const far = run.steps && run.step !== null ? `step ${run.step} of ${run.steps}` : "";
    return { word: run.status, reason: run.reason || far };
  }
  if (!facetOf(cell)) return { word: "no such facet", reason: `this run has ${run.facets.length}` };
  return { word: "no picture", reason: PICTURES[cell.picture] };
}
