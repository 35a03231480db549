// ---- state: all that is set, and the address that says it ----------------------------------------------------------

const LAYS_OUT = ["rows", "columns", "outerRows", "outerColumns"]; // the settings of the grid that name an axis
const VIEWS = ["grid", "ranking", "map", "flow", "channels"];
const TABLES = ["grid", "ranking"]; // views that are cells in rows and columns
const SIZES = { least: 64, most: 384, step: 16 };

function startingAxes() {
  const many = SWEPT.filter((axis) => axis.values.length > 1).toSorted((a, b) => b.values.length - a.values.length);
  if (many.length > 1) return { rows: many[1].key, columns: many[0].key };
  if (many.length === 1) return { rows: many[0].key, columns: "facet" };
  return { rows: "facet", columns: "picture" };
}

// What is compared by at first: as the command itself does it.
function startingMeasure() {
  return measureIndex(DATA.usual) >= 0 ? DATA.usual : (MEASURES[0]?.name ?? "");
}

// As large as lets the first rows and columns be seen together.
function startingSize() {
  if (matchMedia("(max-width: 700px)").matches) return 96;
  const axes = startingAxes(), count = (key) => axisOf(key).values.length;
  const fits = Math.min((innerWidth - 420) / count(axes.columns) - 12, (innerHeight - 140) / count(axes.rows) - 40);
  return Math.min(288, Math.max(128, SIZES.step * Math.floor(fits / SIZES.step)));
}

function defaults() {
  const held = Object.fromEntries(AXES.map((axis) => [axis.key, 0]));
  held.picture = PICTURES.indexOf(LAST);
  return {
    view: DATA.sweeps.length && !SWEEP ? "ranking" : "grid", ...startingAxes(), held, measure: startingMeasure(), bound: null, sort: "swept", filter: "",
    size: startingSize(),
    outerRows: "", outerColumns: "", as: "picture", folded: "", besideMap: "", along: "", channelsAlong: "", channel: null, pair: null, mapPictures: true, looks: [null, null], photograph: null, kind: null,
    open: null, where: "photographs", clear: false, beside: "", sameScale: SAME_SCALE, compared: null, mode: "divider", amplify: 4, lens: { x: 0.5, y: 0.5, zoom: 1 }, split: 50, mark: null,
  };
}

let state = defaults();

function writePlace(words, prefix, place) {
  for (const axis of AXES) words.set(`${prefix}.${axis.key}`, valueLabel(axis, place[axis.key]));
}

function readPlace(words, prefix) {
  const place = {};
  let any = false;
  for (const axis of AXES) {
    const index = axis.values.indexOf(words.get(`${prefix}.${axis.key}`) ?? "");
    any ||= index >= 0;
    place[axis.key] = index >= 0 ? index : state.held[axis.key];
  }
  return any ? place : null;
}

// Several photographs may have one name, in folders of their own: the one that is on the map is meant.
function photographNamed(name) {
  const numbers = shared().names.flatMap((one, i) => (one === name ? [i] : [])), map = mapOf(cellAt(state.held).run);
  return numbers.find((number) => map?.at.has(number)) ?? numbers[0] ?? null;
}

// Only what is not as it is at first, so that addresses stay short.
function toAddress() {
  const words = new URLSearchParams(SWEEP ? { sweep: SWEEP.name } : {});
  const first = defaults();
  for (const name of ["view", "rows", "columns", "measure", "sort", "filter", "beside", "besideMap", "along", "mode", "outerRows", "outerColumns", "as", "folded", "channelsAlong", "where"])
    if (state[name] !== first[name]) words.set(name, state[name]);
  for (const name of ["size", "split", "amplify"]) if (state[name] !== first[name]) words.set(name, String(state[name]));
  if (!state.mapPictures) words.set("pictures", "no");
  if (state.clear) words.set("clear", "yes");
  state.looks.forEach((look, i) => {
    if (look && look.zoom > 1) words.set(`look.${i}`, [look.x, look.y, look.zoom].map((one) => one.toFixed(2)).join());
  });
  if (state.photograph !== null) words.set("photograph", shared().names[state.photograph]);
  if (state.kind !== null) words.set("kind", String(state.kind));
  if (state.channel !== null) words.set("channel", String(state.channel));
  if (state.pair !== null) words.set("pair", state.pair);
  if (state.bound !== null) words.set("bound", String(state.bound));
  if (state.sameScale !== SAME_SCALE) words.set("scale", state.sameScale ? "same" : "own");
  for (const axis of AXES)
    if (state.held[axis.key] !== first.held[axis.key]) words.set(`at.${axis.key}`, valueLabel(axis, state.held[axis.key]));
  if (state.open) writePlace(words, "open", state.open);
  (state.compared ?? []).forEach((place, i) => writePlace(words, LETTERS[i], place));
  if (state.compared && state.lens.zoom > 1) words.set("lens", [state.lens.x, state.lens.y, state.lens.zoom].map((one) => one.toFixed(3)).join());
  return `#${words}`;
}

function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const mark = state.mark;
  state = { ...defaults(), mark };
  const oneOf = (name, allowed) => {
    if (allowed.includes(words.get(name))) state[name] = words.get(name);
  };
  oneOf("view", VIEWS);
  oneOf("rows", [...AXES.map((axis) => axis.key), ""]);
  oneOf("columns", [...AXES.map((axis) => axis.key), ""]);
  if (state.rows === state.columns) state.rows = "";
  for (const name of ["outerRows", "outerColumns"]) {
    oneOf(name, AXES.map((axis) => axis.key));
    if (LAYS_OUT.some((other) => other !== name && state[other] === state[name])) state[name] = "";
  }
  oneOf("folded", FOLDABLE.map((axis) => axis.key));
  oneOf("as", ["picture", "difference", "heat", ...(ANY_TRANSPARENCY ? ["transparency"] : [])]);
  oneOf("where", WHERE);
  state.clear = words.get("clear") === "yes";
  oneOf("measure", MEASURES.map((measure) => measure.name));
  oneOf("sort", ["swept", "best"]);
  oneOf("beside", ["left", "right", "above", "below"]);
  state.filter = words.get("filter") ?? "";
  state.besideMap = words.get("besideMap") ?? "";
  oneOf("channelsAlong", SWEPT.map((axis) => axis.key));
  state.channel = /^\d{1,7}$/.test(words.get("channel") ?? "") ? Number(words.get("channel")) : null;
  state.pair = words.get("pair");
  state.along = words.get("along") ?? "";
  state.mapPictures = words.get("pictures") !== "no";
  state.looks = [0, 1].map((i) => {
    const [x, y, zoom] = (words.get(`look.${i}`) ?? "").split(",").map(Number);
    return Number.isFinite(x + y + zoom) && zoom > 1 && zoom <= 100 ? { x, y, zoom } : null;
  });
  state.photograph = null;
  state.kind = /^\d{1,4}$/.test(words.get("kind") ?? "") ? Number(words.get("kind")) : null;
  const number = (name, least, most) => {
    const value = Number(words.get(name));
    if (words.has(name) && Number.isFinite(value)) state[name] = Math.min(most, Math.max(least, value));
  };
  number("size", SIZES.least, SIZES.most);
  number("split", 0, 100);
  number("amplify", 1, 8);
  oneOf("mode", MODES);
  const [x, y, zoom] = (words.get("lens") ?? "").split(",").map(Number);
  if (Number.isFinite(x + y + zoom) && zoom >= 1 && zoom <= LENS.most) state.lens = { x, y, zoom };
  number("bound", 0, 100);
  state.sameScale = ["same", "own"].includes(words.get("scale")) ? words.get("scale") === "same" : SAME_SCALE;
  for (const axis of AXES) {
    const index = axis.values.indexOf(words.get(`at.${axis.key}`) ?? "");
    if (index >= 0) state.held[axis.key] = index;
  }
  if (words.has("photograph")) state.photograph = photographNamed(words.get("photograph"));
  state.open = readPlace(words, "open");
  const compared = LETTERS.map((letter) => readPlace(words, letter)).filter(Boolean);
  state.compared = compared.length > 1 ? compared : null;
}

// Change something: shown at once, and said by the address. `step`: something the browser's Back should undo.
function set(change, { step = false } = {}) {
  Object.assign(state, change);
  const address = toAddress();
  if (step) history.pushState(null, "", address);
  else if (address !== location.hash) later(address);
  show();
}

// Browsers limit how often the address may be changed: while a slider is dragged it follows a little later.
let waiting = 0;
function later(address) {
  clearTimeout(waiting);
  waiting = setTimeout(() => history.replaceState(null, "", toAddress() || address), 120);
}
