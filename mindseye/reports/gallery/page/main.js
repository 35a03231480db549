// ---- main: controls, keys, and what is shown when ------------------------------------------------------------------

function fillChoices() {
  const choices = (select, pairs) => select.replaceChildren(...pairs.map(([value, text]) => make("option", { value, text })));
  const axes = AXES.filter((axis) => axis.values.length > 1).map((axis) => [axis.key, axis.key]);
  choices(byId("rows"), [["", "none"], ...axes]);
  choices(byId("columns"), [["", "none"], ...axes]);
  for (const name of ["outerRows", "outerColumns"]) choices(byId(name), [["", "none"], ...axes]);
  if (!ANY_TRANSPARENCY) byId("as").querySelector("[value=transparency]").remove();
  choices(byId("measure"), MEASURES.map((measure) => [measure.name, spoken(measure.name)]));
  byId("sweeps-section").hidden = DATA.sweeps.length === 0;
  choices(byId("sweep"), [["", "all runs"], ...DATA.sweeps.map(({ name, runs }) => [name, `${name} (${runs.length})`])]);
  byId("folds").replaceChildren(...FOLDABLE.map(foldControl));
  byId("sweep").value = SWEEP?.name ?? "";
  document.title = `${DATA.title} · mindseye gallery`;
  byId("title").textContent = DATA.title;
}

// The axes that each view has no control for, since it lays them out itself, or has nothing to do with them.
const LAID_OUT = {
  grid: () => LAYS_OUT.map((name) => state[name]),
  ranking: () => AXES.map((axis) => axis.key).filter((key) => key !== "picture"),
  map: () => ["facet", "picture"],
  channels: () => ["facet", "picture", state.channelsAlong],
  flow: () => ["facet", "picture", flowAxis()?.key],
};

// A slider where values have an order, else a menu, for every axis that is neither rows nor columns.
function showHeld() {
  const laidOut = [...LAID_OUT[state.view](), ...(TABLES.includes(state.view) ? [state.folded] : [])];
  const held = AXES.filter((axis) => axis.values.length > 1 && !laidOut.includes(axis.key));
  const holder = byId("held"), content = held.map((axis) => axis.key).join("\n");
  byId("folds").hidden = FOLDABLE.length === 0 || !TABLES.includes(state.view);
  for (const box of byId("folds").querySelectorAll("input")) box.checked = box.value === state.folded;
  byId("held").parentElement.hidden = held.length === 0 && byId("folds").hidden;
  if (holder.dataset.content !== content) {
    holder.dataset.content = content;
    holder.replaceChildren(...held.map(heldControl));
  }
  for (const axis of held) {
    const control = byId(`held-${AXES.indexOf(axis)}`), label = valueLabel(axis, state.held[axis.key]);
    control.value = String(state.held[axis.key]);
    if (control.type !== "range") continue;
    control.setAttribute("aria-valuetext", label);
    byId(`${control.id}-value`).textContent = label;
  }
}

// Plays along an axis, round and round, until it is stopped.
const PLAY_MS = 600;
let played = null;
function playButton(axis) {
  const button = make("button", { type: "button", class: "small play", "aria-label": `Play along ${axis.key}`, text: "▶" });
  button.addEventListener("click", () => (played?.key === axis.key ? stopAxis() : playAxis(axis, button)));
  return button;
}
function playAxis(axis, button) {
  stopAxis();
  button.textContent = "■";
  button.setAttribute("aria-label", `Stop ${axis.key}`);
  const step = () => {
    if (!button.isConnected) return stopAxis();
    set({ held: { ...state.held, [axis.key]: (state.held[axis.key] + 1) % axis.values.length } });
  };
  played = { key: axis.key, button, timer: setInterval(step, PLAY_MS) };
}
function stopAxis() {
  if (!played) return;
  clearInterval(played.timer);
  played.button.textContent = "▶";
  played.button.setAttribute("aria-label", `Play along ${played.key}`);
  played = null;
}

function heldControl(axis) {
  const id = `held-${AXES.indexOf(axis)}`;
  const change = (event) => set({ held: { ...state.held, [axis.key]: Number(event.target.value) } });
  const name = make("span", { text: axis.key, dir: "auto" });
  if (!axis.numeric) {
    const select = make("select", { id }, axis.values.map((value, i) => make("option", { value: i, text: value })));
    select.addEventListener("change", change);
    return make("div", { class: "held" }, [make("label", { class: "field", for: id }, [name, select]), playButton(axis)]);
  }
  const slider = make("input", { type: "range", id, min: 0, max: axis.values.length - 1, step: 1 });
  slider.addEventListener("input", change);
  return make("div", { class: "slide held" }, [make("label", { for: id }, [name]), make("output", { id: `${id}-value`, for: id }), make("div", { class: "playing" }, [playButton(axis), slider])]);
}

function showControls() {
  for (const name of LAYS_OUT) byId(name).value = state[name];
  for (const name of ["outerRows", "outerColumns"]) byId(name).closest("label").hidden = AXES.filter((axis) => axis.values.length > 1).length < 3;
  byId("as").value = state.as;
  byId("axes-section").hidden = state.view !== "grid";
  byId("measure").value = state.measure;
  byId("sort").value = state.view === "ranking" ? "best" : state.sort;
  byId("sort").disabled = state.view === "ranking";
  byId("measure-section").hidden = byId("size-section").hidden = !TABLES.includes(state.view);
  byId("measure-section").hidden ||= MEASURES.length === 0;
  for (const view of VIEWS) byId(`view-${view}`).setAttribute("aria-pressed", String(state.view === view));
  byId("size").value = state.size;
  byId("size-value").textContent = `${state.size} px`;
  if (byId("filter").value !== state.filter) byId("filter").value = state.filter;
  const index = measureIndex(state.measure);
  if (index >= 0) {
    const measure = MEASURES[index], down = wantsLess(measure);
    byId("measure-about").textContent = [
      measure.about,
      better(measure) && `${better(measure)[0].toUpperCase()}${better(measure).slice(1)}.`,
      SCALES[index] && `Every bar goes from ${figure(measure.scale[0])} to ${figure(measure.scale[1])}.`,
    ].filter(Boolean).join(" ");
    byId("bound-label").textContent = down ? "At most" : "At least";
    byId("bound").value = state.bound ?? 0;
    byId("bound-value").textContent = state.bound === null ? "any" : figure(boundValue());
    byId("bound").setAttribute("aria-valuetext", byId("bound-value").textContent);
  }
  showHeld();
  const sections = [...byId("controls-form").children];
  byId("controls").hidden = sections.every((section) => section.hidden);
}

function showCounts() {
  const byStatus = new Map();
  for (const run of RUNS) byStatus.set(run.status, (byStatus.get(run.status) ?? 0) + 1);
  const states = [...byStatus].map(([status, count]) => `${count} ${status}`).join(", ");
  const narrowed = table.filter.active || state.bound !== null;
  const cells = narrowed ? `${table.found} of ${table.total} cells match · ` : "";
  byId("counts").textContent = `${cells}${RUNS.length} ${RUNS.length === 1 ? "run" : "runs"}: ${states}`;
  byId("filter-error").textContent = table.filter.error;
  const nothing = byId("nothing");
  nothing.hidden = table.rows > 0;
  nothing.replaceChildren(...(RUNS.length ? elsewhere() : ["There are no runs here."]));
  byId("scroller").hidden = table.rows === 0;
}

// Where nothing is left by the filter though cells match that what is held leaves out: what to move, and where to.
function elsewhere() {
  const found = [];
  RUNS.forEach((run, index) => run.facets.forEach((_, facet) => {
    const cell = { run: index, facet, picture: state.held.picture };
    if (passes(cell, table.filter)) found.push(cell);
  }));
  if (!found.length) return ["No cell matches the filter."];
  const best = placeOf(found[0]), laidOut = LAYS_OUT.map((name) => state[name]);
  const moved = AXES.filter((axis) => !laidOut.includes(axis.key) && axis.key !== "picture" && best[axis.key] !== state.held[axis.key]);
  const button = make("button", { type: "button", text: "Show them" });
  button.addEventListener("click", () => set({ held: { ...state.held, ...Object.fromEntries(moved.map((axis) => [axis.key, best[axis.key]])) } }));
  const words = moved.map((axis) => `${axis.key} is held at ${valueLabel(axis, state.held[axis.key])}, and there is a match at ${valueLabel(axis, best[axis.key])}`);
  return [`${found.length} ${found.length === 1 ? "cell matches" : "cells match"}, none of them in this grid: ${words.join("; ")}. `, button];
}

// Facets are numbered within each run: where number c stands for different photographs, the page says so.
function showNotes() {
  const notes = [...DATA.notes];
  if (!TABLES.includes(state.view)) return byId("notes").replaceChildren(...notes.map((text) => make("p", { class: "note", text, dir: "auto" })));
  if (table.kind === "grid" && table.axes.every((axis) => axis.key !== "facet") && FACETS > 1) {
    const lists = new Set(), kinds = new Set(); // a kind means nothing where a run keeps no map
    for (let i = 0; i < table.rows && kinds.size < 2; i++)
      for (let j = 0; j < table.columns; j++) {
        const cell = cellAt(table.placeAt(i, j)), facet = facetOf(cell);
        if (!facet) continue;
        lists.add(facet.photographs);
        kinds.add(RUNS[cell.run].map === null ? `list ${facet.photographs}` : `${worldOf(cell.run)} ${kindOf(cell.run, cell.facet)}`);
      }
    if (kinds.size > 1) notes.push(`Facet ${state.held.facet} is not made of the same photographs in every cell: facets are found anew for each layer, network and seed.`);
    else if (lists.size > 1) notes.push(`Facet ${state.held.facet} is the same kind of photographs in every cell, though not blended of the same ones.`);
  }
  if (state.folded && table.rows) {
    const run = RUNS.findIndex((one) => one.facets.length), worlds = run < 0 ? [] : runsOverSeeds(run).map(([, one]) => worldOf(one));
    const apart = new Set(worlds).size > 1;
    notes.push(state.view === "ranking" || apart
      ? `A figure is the mean over all facets of a cell, and ± half of its 95 % interval over ${state.folded} (Student's t).${apart ? ` Each ${state.folded} looks at photographs of its own, so that facets cannot be held against each other.` : ""}`
      : `A figure is the mean over the facets of one kind of photographs under each ${state.folded}, and ± half of its 95 % interval (Student's t).`);
    const others = FOLDABLE.map((axis) => axis.key).filter((key) => key !== state.folded);
    if (others.length) notes.push(`The interval is over ${state.folded} alone: what ${others.join(" or ")} changes is not in it.`);
  }
  if (state.mark) notes.push(`A: ${describe(state.mark, AXES.map((axis) => axis.key))}. Press c on another cell to compare, on the same to unmark.`);
  byId("notes").replaceChildren(...notes.map((text) => make("p", { class: "note", text, dir: "auto" })));
}

function show() {
  showControls();
  const tables = TABLES.includes(state.view);
  for (const view of VIEWS) if (!TABLES.includes(view)) byId(view).hidden = view !== state.view;
  byId("scroller").hidden = false;
  refreshGrid();
  showCounts();
  showNotes();
  if (!tables) byId("scroller").hidden = byId("nothing").hidden = true;
  if (state.view === "map") showMap();
  if (state.view === "flow") showFlow();
  if (state.view === "channels") showChannels();
  showLarge();
  showComparison();
}

// ---- controls

const change = (id, event, make) => byId(id).addEventListener(event, (happened) => set(make(happened.target.value)));
// An axis that is laid out already goes where the chosen one was.
for (const name of LAYS_OUT)
  change(name, "change", (key) => {
    const taken = key && LAYS_OUT.find((other) => other !== name && state[other] === key);
    return { [name]: key, folded: key === state.folded ? "" : state.folded, ...(taken ? { [taken]: state[name] } : {}) };
  });
change("as", "change", (as) => ({ as }));
change("measure", "change", (measure) => ({ measure, bound: null }));
change("bound", "input", (bound) => ({ bound: Number(bound) === 0 ? null : Number(bound) }));
change("sort", "change", (sort) => ({ sort }));
change("size", "input", (size) => ({ size: Number(size) }));
change("filter", "input", (filter) => ({ filter }));
const swap = () => set({ rows: state.columns, columns: state.rows });
byId("swap").addEventListener("click", swap);
for (const view of VIEWS) byId(`view-${view}`).addEventListener("click", () => set({ view }));
byId("controls-form").addEventListener("submit", (event) => event.preventDefault());

// ---- light and dark

const THEMES = ["auto", "light", "dark"];
let theme = "auto";
try {
  if (THEMES.includes(localStorage.getItem("mindseye-theme"))) theme = localStorage.getItem("mindseye-theme");
} catch {
  // a page from disk may have no storage: then it is as the system has it
}
function showTheme() {
  document.documentElement.dataset.theme = theme;
  const [sign, word] = { auto: ["◐", "Auto"], light: ["☀", "Light"], dark: ["☾", "Dark"] }[theme];
  byId("theme").replaceChildren(sign, make("span", { class: "word", text: ` ${word}` }));
  byId("theme").setAttribute("aria-label", `Theme: ${theme}`);
}
function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try {
    localStorage.setItem("mindseye-theme", theme);
  } catch {
    // not kept
  }
  showTheme();
  drawMapsSoon();
}
byId("theme").addEventListener("click", nextTheme);

// ---- dialogs

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop
  });
}
large.addEventListener("close", () => {
  if (state.open) set({ open: null });
  const found = lastOpen && table.find(lastOpen);
  if (found) goTo(found.row, found.column);
});
comparison.addEventListener("close", () => {
  if (state.compared) set({ compared: null, lens: { x: 0.5, y: 0.5, zoom: 1 } });
});
const help = byId("help");
byId("help-button").addEventListener("click", () => help.showModal());

// ---- keys

function heldStep(key, by) {
  const last = axisOf(key).values.length - 1;
  set({ held: { ...state.held, [key]: Math.max(0, Math.min(last, state.held[key] + by)) } });
}

function gridKey(event) {
  const page = Math.max(1, Math.floor(scroller.clientHeight / cellHeight()) - 1);
  const moves = {
    ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
    PageUp: [-Math.min(page, active.row), 0], PageDown: [Math.min(page, table.rows - 1 - active.row), 0],
    Home: [0, -active.column], End: [0, table.columns - 1 - active.column],
  };
  if (event.key in moves) {
    const [down, right] = moves[event.key];
    goTo(active.row + down, active.column + right);
  } else if (event.key === "Enter" || event.key === " ") openActive();
  else return false;
  return true;
}

const KEYS = {
  "/": () => byId("filter").focus(),
  "?": () => help.showModal(),
  g: () => set({ view: VIEWS[(VIEWS.indexOf(state.view) + 1) % VIEWS.length] }),
  s: () => set({ sort: state.sort === "best" ? "swept" : "best" }),
  x: swap,
  t: nextTheme,
  c: markActive,
  "*": () => {
    const place = TABLES.includes(state.view) && table.placeAt(active.row, active.column);
    if (place) toggleStar(place);
  },
  "+": () => set({ size: Math.min(SIZES.most, state.size + SIZES.step) }),
  "-": () => set({ size: Math.max(SIZES.least, state.size - SIZES.step) }),
  "[": () => heldStep("facet", -1),
  "]": () => heldStep("facet", 1),
  ",": () => heldStep("picture", -1),
  ".": () => heldStep("picture", 1),
};

function largeFacet(by) {
  const count = RUNS[cellAt(state.open).run].facets.length;
  set({ open: { ...state.open, facet: Math.max(0, Math.min(count - 1, state.open.facet + by)) } });
}

const LARGE_KEYS = {
  ",": () => stepLarge(-1),
  ".": () => stepLarge(1),
  "[": () => largeFacet(-1),
  "]": () => largeFacet(1),
  c: () => compareOpen(),
  d: () => differenceOpen(),
  h: nextWhere,
  o: () => set({ clear: !state.clear }),
  "*": () => toggleStar(state.open),
  t: nextTheme,
  "?": () => help.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest?.("input, select, textarea");
  if (field) {
    if (event.key === "Escape" && field.id === "filter") {
      set({ filter: "" });
      focusActive();
      event.preventDefault();
    } else if (event.key === "Enter" && field.id === "filter") focusActive();
    return;
  }
  let done = true;
  if (help.open || saving.open) done = false;
  else if (comparison.open) done = comparisonKey(event);
  else if (large.open) {
    const across = event.key === "ArrowLeft" || event.key === "ArrowRight", wide = event.target.closest?.(".wide");
    const scrolls = event.key in ARROWS && (across ? wide && wide.scrollWidth > wide.clientWidth : event.target.closest?.(".right"));
    if (event.key in LARGE_KEYS) LARGE_KEYS[event.key]();
    else if (event.key in ARROWS && !scrolls) moveLarge(ARROWS[event.key]);
    else done = false;
  } else if (grid.contains(event.target) && gridKey(event)) done = true;
  else if (state.view === "map" && mapKey(event)) done = true;
  else if (event.key in ARROWS && event.target === document.body) focusActive();
  else if (event.key in KEYS) KEYS[event.key]();
  else done = false;
  if (done) event.preventDefault();
});

// ---- start

// Another sweep has other axes: the page begins anew.
byId("sweep").addEventListener("change", (event) => {
  history.pushState(null, "", `#${event.target.value ? new URLSearchParams({ sweep: event.target.value }) : ""}`);
  location.reload();
});
addEventListener("popstate", () => {
  if ((new URLSearchParams(location.hash.slice(1)).get("sweep") ?? "") !== (SWEEP?.name ?? "")) return location.reload();
  fromAddress();
  show();
});
const narrow = matchMedia("(max-width: 700px)");
const fold = () => (byId("controls").open = !narrow.matches);
narrow.addEventListener("change", fold);
fold();
fillChoices();
showReport();
showTheme();
fromAddress();
show();
