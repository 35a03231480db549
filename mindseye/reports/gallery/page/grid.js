// ---- grid: the cells in rows and columns, of which only those in sight are elements --------------------------------

const scroller = byId("scroller"), grid = byId("grid");
const PADDING = 6, HEAD = 40, GROUP = 18, AHEAD = 1; // pixels; rows and columns kept ready beyond the edge of what is in sight

let table = null; // what is shown now, see `layOut`
let active = { row: 0, column: 0 }; // the cell that the keyboard is at
const drawnRows = new Map(), drawnHeads = new Map();

function passes(cell, filter) {
  if (!filter.matches(cell)) return false;
  if (state.bound === null) return true;
  const value = measureOf(cell, measureIndex(state.measure));
  const threshold = boundValue();
  if (value === null || threshold === null) return false;
  return wantsLess(MEASURES[measureIndex(state.measure)]) ? value <= threshold : value >= threshold;
}

// Whether the bound is from above: also where 1 is best, since most pictures have more.
const wantsLess = (measure) => measure.better === "smaller" || measure.better === "near 1";

// The bound is kept in hundredths of the measure's scale, counted from its worse end.
function boundValue() {
  const index = measureIndex(state.measure), scale = SCALES[index];
  if (state.bound === null || !scale) return null;
  const share = wantsLess(MEASURES[index]) ? 1 - state.bound / 100 : state.bound / 100;
  return scale.low + share * (scale.high - scale.low);
}

// The mean of a measure over what gives its figures by their index; shares of a way count by the way.
function weighted(givers, index) {
  const weight = measureIndex(MEASURES[index].weight);
  let sum = 0, weights = 0;
  for (const give of givers) {
    const value = give(index);
    if (value === null) continue;
    const counts = weight < 0 ? 1 : (give(weight) ?? 1);
    sum += value * counts;
    weights += counts;
  }
  return weights ? sum / weights : null;
}
const mean = (cells, index) => weighted(cells.map((cell) => (i) => measureOf(cell, i)), index);

// Sorts so that the best comes first and what has no value last.
function best(items, valueOf) {
  const measure = MEASURES[measureIndex(state.measure)];
  return items
    .map((item) => ({ item, value: valueOf(item) }))
    .toSorted((x, y) => {
      if (x.value === null || y.value === null) return (x.value === null) - (y.value === null);
      return quality(measure, y.value) - quality(measure, x.value);
    })
    .map(({ item }) => item);
}

// {rows, columns: their number; placeAt(row, column); labels; found: cells that pass}
function layOut() {
  const filter = parseFilter(state.filter);
  const measure = measureIndex(state.measure);
  return state.view === "ranking" ? layOutRanking(filter, measure) : layOutGrid(filter, measure);
}

// The rows, or columns, of the grid: every value of one axis, within every value of an outer one, if there is one.
function linesOf(outer, inner) {
  const all = (axis) => (axis ? axis.values.map((_, i) => ({ [axis.key]: i })) : [{}]);
  return all(outer).flatMap((group) => all(inner).map((own) => ({
    at: { ...group, ...own }, id: `${outer ? group[outer.key] : ""}.${inner ? own[inner.key] : ""}`,
    group: outer ? `${outer.key} ${valueLabel(outer, group[outer.key])}` : "", label: inner ? valueLabel(inner, own[inner.key]) : "",
  })));
}

function layOutGrid(filter, measure) {
  const row = axisOf(state.rows), column = axisOf(state.columns);
  const outer = [axisOf(state.outerRows), axisOf(state.outerColumns)];
  let rows = linesOf(outer[0], row), columns = linesOf(outer[1], column);
  const place = (r, c) => overSeeds({ ...state.held, ...r.at, ...c.at });
  const passing = new Set();
  let total = 0;
  for (const r of rows)
    for (const c of columns) {
      const cell = cellAt(place(r, c));
      total += cell.run >= 0;
      if (passes(cell, filter)) passing.add(`${r.id},${c.id}`);
    }
  const narrowed = filter.active || state.bound !== null;
  if (narrowed) {
    const keptRows = rows.filter((r) => columns.some((c) => passing.has(`${r.id},${c.id}`)));
    columns = columns.filter((c) => rows.some((r) => passing.has(`${r.id},${c.id}`)));
    rows = keptRows;
  }
  if (state.sort === "best" && measure >= 0) {
    const at = (r, c) => cellAt(place(r, c));
    // The order of the steps of a picture is its meaning; groups stay together.
    if (row && row.key !== "picture" && !outer[0]) rows = best(rows, (r) => mean(columns.map((c) => at(r, c)), measure));
    if (column && column.key !== "picture" && !outer[1]) columns = best(columns, (c) => mean(rows.map((r) => at(r, c)), measure));
  }
  const stands = (lines, here) => lines.findIndex((line) => Object.entries(line.at).every(([key, i]) => here[key] === i));
  const begins = (lines, i) => (lines[i].group && lines[i].group !== lines[i - 1]?.group ? lines[i].group : "");
  return {
    kind: "grid", filter, total, found: passing.size,
    rows: rows.length, columns: columns.length,
    rowAxis: row ?? outer[0], columnAxis: column ?? outer[1], axes: [row, column, ...outer].filter(Boolean), outer,
    rowLabel: (i) => rows[i].label, columnLabel: (i) => columns[i].label,
    rowGroup: (i) => begins(rows, i), columnGroup: (i) => begins(columns, i),
    placeAt: (i, j) => (i in rows && j in columns ? place(rows[i], columns[j]) : null),
    passing: (i, j) => passing.has(`${rows[i].id},${columns[j].id}`),
    // Where a place stands by its rows and columns, whatever it has on the other axes.
    find(here) {
      const i = stands(rows, here), j = stands(columns, here);
      return i >= 0 && j >= 0 ? { row: i, column: j } : null;
    },
  };
}

function layOutRanking(filter, measure) {
  let cells = [];
  RUNS.forEach((run, index) => {
    if (state.folded && cellAt(overSeeds(placeOf({ run: index, facet: 0, picture: 0 }))).run !== index) return;
    // with seeds folded away cells are ranked, not facets
    const facets = state.folded ? [Math.min(state.held.facet, Math.max(0, run.facets.length - 1))] : run.facets.length ? run.facets.map((_, c) => c) : [0];
    for (const facet of facets) cells.push({ run: index, facet, picture: state.held.picture });
  });
  const total = cells.length;
  cells = cells.filter((cell) => passes(cell, filter));
  if (measure >= 0) cells = best(cells, (cell) => measureOf(cell, measure));
  const columns = Math.max(1, Math.floor((scroller.clientWidth - 2) / cellWidth()));
  const keyOf = (cell) => (state.folded ? String(cell.run) : `${cell.run},${cell.facet}`);
  const keys = new Map(cells.map((cell, i) => [keyOf(cell), i]));
  return {
    kind: "ranking", filter, total, found: cells.length,
    rows: Math.ceil(cells.length / columns), columns: Math.min(columns, cells.length),
    rowAxis: null, columnAxis: null, axes: [], outer: [],
    placeAt: (i, j) => (j >= 0 && j < columns && cells[i * columns + j] ? placeOf(cells[i * columns + j]) : null),
    passing: () => true,
    find(here) {
      const i = keys.get(keyOf(cellAt(overSeeds(here))));
      return i === undefined ? null : { row: Math.floor(i / columns), column: i % columns };
    },
  };
}

const cellWidth = () => state.size + 2 * PADDING;
const labelLines = () => (state.size < 160 ? 4 : 2); // of the settings below a small picture, all that tell it apart
const captionHeight = () => (state.view === "ranking" ? 28 + 16 * labelLines() : 24);
const cellHeight = () => state.size + 2 * PADDING + captionHeight();
function sideWidth() {
  return (table.side ??= widthOfLabels());
}
function widthOfLabels() {
  if (!table.rowAxis) return 0;
  const longest = [table.rowAxis, table.outer[0]].filter(Boolean)
    .flatMap((axis) => [axis.key.length + 2, ...axis.values.map((value) => value.length)]).reduce((most, length) => Math.max(most, length));
  const most = scroller.clientWidth < 600 ? 72 : 180;
  return Math.min(most, Math.max(52, 20 + 7.5 * longest));
}
const headHeight = () => (table.kind === "grid" ? HEAD + (table.outer[1] ? GROUP : 0) : 0);

function buildGrid() {
  table = layOut();
  active = {
    row: Math.max(0, Math.min(active.row, table.rows - 1)),
    column: Math.max(0, Math.min(active.column, table.columns - 1)),
  };
  grid.replaceChildren();
  drawnRows.clear();
  drawnHeads.clear();
  grid.style.width = `${sideWidth() + table.columns * cellWidth()}px`;
  grid.style.height = `${headHeight() + table.rows * cellHeight()}px`;
  grid.setAttribute("aria-rowcount", table.rows + (table.kind === "grid" ? 1 : 0));
  grid.setAttribute("aria-colcount", table.columns + (table.rowAxis ? 1 : 0));
  grid.setAttribute("aria-label", table.kind === "grid" ? `Rows: ${state.rows || "none"}, columns: ${state.columns || "none"}` : `Cells, the best first by ${spoken(state.measure)}`);
  grid.hidden = table.rows === 0;
  if (table.kind === "grid" && table.rows) {
    const heads = make("div", { role: "row", class: "heads", "aria-rowindex": "1" });
    heads.style.height = `${headHeight()}px`;
    if (table.rowAxis) {
      const corner = make("div", { role: "columnheader", class: "corner", "aria-colindex": "1" });
      corner.style.width = `${sideWidth()}px`;
      const key = table.rowAxis.key, short = 7.5 * (key.length + 2) + 12 > sideWidth() ? key.split(".").at(-1) : key;
      corner.append(make("span", { text: `${short} ↓`, dir: "auto", title: table.rowAxis.key }));
      heads.append(corner);
    }
    drawnRows.set("heads", { element: heads, cells: drawnHeads });
    grid.append(heads);
  }
  drawCells();
}

// Where one table follows another of the same shape (a slider was moved), elements stay and only their content changes.
function refreshGrid() {
  const before = table && `${table.kind} ${table.rows} ${table.columns} ${state.rows} ${state.columns} ${state.size} ${state.measure} ${state.outerRows} ${state.outerColumns} ${state.folded}`;
  if (before !== refreshGrid.shape || !table) return rebuild();
  const next = layOut();
  const shape = `${next.kind} ${next.rows} ${next.columns} ${state.rows} ${state.columns} ${state.size} ${state.measure} ${state.outerRows} ${state.outerColumns} ${state.folded}`;
  if (shape !== refreshGrid.shape) return rebuild();
  table = next;
  drawCells();
}
function rebuild() {
  const focused = grid.contains(document.activeElement);
  buildGrid();
  refreshGrid.shape = `${table.kind} ${table.rows} ${table.columns} ${state.rows} ${state.columns} ${state.size} ${state.measure} ${state.outerRows} ${state.outerColumns} ${state.folded}`;
  if (focused) focusActive();
}

function inSight() {
  const rows = cellHeight(), columns = cellWidth(), side = sideWidth();
  const range = (offset, extent, size, count) => [
    Math.max(0, Math.floor(offset / size) - AHEAD),
    Math.min(count - 1, Math.floor((offset + extent) / size) + AHEAD),
  ];
  return {
    rows: range(scroller.scrollTop, scroller.clientHeight, rows, table.rows),
    columns: range(scroller.scrollLeft, scroller.clientWidth - side, columns, table.columns),
  };
}

function drawCells() {
  if (!table || !table.rows) return;
  const { rows: [top, bottom], columns: [left, right] } = inSight();
  const wanted = (index, low, high, own) => (index >= low && index <= high) || index === own;
  for (const [index, { element }] of drawnRows)
    if (index !== "heads" && !wanted(index, top, bottom, active.row)) element.remove(), drawnRows.delete(index);
  const rows = new Set([active.row]);
  for (let i = top; i <= bottom; i++) rows.add(i);
  for (const i of [...rows].sort((a, b) => a - b)) drawRow(i, left, right);
  drawHeads(left, right);
}

function drawHeads(left, right) {
  const heads = drawnRows.get("heads")?.element;
  if (!heads) return;
  for (const [j, element] of drawnHeads) if (j < left || j > right) element.remove(), drawnHeads.delete(j);
  for (let j = left; j <= right; j++) {
    let head = drawnHeads.get(j);
    if (!head) {
      head = make("div", { role: "columnheader", class: "head", "aria-colindex": j + (table.rowAxis ? 2 : 1) }, [make("span", { dir: "auto" })]);
      head.style.left = `${sideWidth() + j * cellWidth()}px`;
      head.style.width = `${cellWidth()}px`;
      heads.append(head);
      drawnHeads.set(j, head);
    }
    const label = table.columnLabel(j);
    const words = table.columnAxis?.key === "picture" || !table.columnAxis ? label : `${table.columnAxis.key} ${label}`;
    const group = table.columnGroup?.(j);
    head.classList.toggle("begins", Boolean(group) && j > 0);
    head.firstChild.replaceChildren(
      ...(group ? [make("b", { class: "group", text: group })] : table.outer[1] ? [make("b", { class: "group", text: "\u00a0" })] : []),
      ...(words === label ? [label || "\u00a0"] : [make("small", { text: table.columnAxis.key }), ` ${label}`]),
    );
    head.title = words;
  }
}

function drawRow(i, left, right) {
  let row = drawnRows.get(i);
  if (!row) {
    const offset = table.kind === "grid" ? 2 : 1;
    const element = make("div", { role: "row", class: "row", "aria-rowindex": i + offset });
    element.style.top = `${headHeight() + i * cellHeight()}px`;
    element.style.height = `${cellHeight()}px`;
    if (table.rowAxis) {
      const header = make("div", { role: "rowheader", class: "side", "aria-colindex": "1" }, [make("span", { dir: "auto" })]);
      header.style.width = `${sideWidth()}px`;
      element.append(header);
    }
    // in the order of the rows, for screen readers
    const after = [...drawnRows.entries()].filter(([index]) => index !== "heads" && index > i).sort(([a], [b]) => a - b)[0];
    grid.insertBefore(element, after ? after[1].element : null);
    row = { element, cells: new Map() };
    drawnRows.set(i, row);
  }
  if (table.rowAxis) {
    const group = table.rowGroup?.(i);
    row.element.classList.toggle("begins", Boolean(group) && i > 0);
    row.element.firstChild.firstChild.replaceChildren(...(group ? [make("b", { class: "group", text: group })] : []), table.rowLabel(i));
    row.element.firstChild.title = `${table.rowAxis.key} ${table.rowLabel(i)}`;
  }
  for (const [j, cell] of row.cells)
    if ((j < left || j > right) && !(i === active.row && j === active.column)) cell.remove(), row.cells.delete(j);
  const columns = [];
  for (let j = left; j <= right; j++) columns.push(j);
  if (i === active.row && (active.column < left || active.column > right)) columns.push(active.column);
  for (const j of columns) {
    const place = table.placeAt(i, j);
    let element = row.cells.get(j);
    if (!place) {
      element?.remove();
      row.cells.delete(j);
      continue;
    }
    if (!element) {
      element = make("div", { role: "gridcell", class: "cell", "aria-colindex": j + (table.rowAxis ? 2 : 1) });
      element.style.left = `${sideWidth() + j * cellWidth()}px`;
      element.style.width = `${cellWidth()}px`;
      element.dataset.row = i;
      element.dataset.column = j;
      row.element.append(element);
      row.cells.set(j, element);
    }
    fillCell(element, place, i, j);
  }
}

// What a cell shows: its picture, what of it the initial image has not, or its measure as a colour.
function shownOf(cell, value) {
  const scale = SCALES[measureIndex(state.measure)];
  if (state.as === "heat" && value !== null && scale) {
    const share = scale.high > scale.low ? (value - scale.low) / (scale.high - scale.low) : 1;
    const tile = make("p", { class: `heat${share > DARK ? " dark" : ""}`, text: figure(value) });
    tile.style.backgroundColor = heatOf(Math.min(1, Math.max(0, share)));
    return tile;
  }
  if (state.as === "transparency") return picture(cell, { clear: true });
  const initial = { ...cell, picture: PICTURES.indexOf("initial image") };
  if (state.as !== "difference" || sourceOf(cell) === null || sourceOf(initial) === null) return picture(cell);
  return make("div", { class: "minus" }, [picture(initial), picture(cell)]);
}

// From light to dark, in one hue: readable for the colour-blind, and in grey. From DARK on text on it is white.
const DARK = 0.63;
function heatOf(share) {
  const light = [236, 242, 250], dark = [8, 48, 107];
  return `rgb(${light.map((value, i) => Math.round(value + share * (dark[i] - value))).join(" ")})`;
}

// What tells a cell apart, in few letters: the end of each key, and nothing that it does not set.
const NOT_SET = "(default)";
function labelOf(place, keys) {
  // among several sweeps: what varies in its own, and which it is
  const sweep = SWEEP ? null : DATA.sweeps.find(({ runs }) => runs.includes(cellAt(place).run));
  const own = sweep && new Set([...sweep.axes.map(({ key }) => key), "facet"]);
  const varied = keys.filter((key) => !own || own.has(key)).map(axisOf).filter((axis) => axis && valueLabel(axis, place[axis.key]) !== NOT_SET);
  const said = varied.map((axis) => {
    const end = axis.key.split(".").at(-1), alone = keys.filter((key) => key.split(".").at(-1) === end).length < 2;
    return `${alone ? end : axis.key}\u00a0${valueLabel(axis, place[axis.key])}`;
  });
  return [...said, ...(sweep ? [sweep.name] : [])].join(" · ");
}

function fillCell(element, place, i, j) {
  const cell = cellAt(place);
  const measure = measureIndex(state.measure), value = measureOfPicture(cell, measure);
  element.tabIndex = i === active.row && j === active.column ? 0 : -1;
  element.classList.toggle("dim", !table.passing(i, j));
  element.classList.toggle("marked", samePlace(state.mark, place));
  element.classList.toggle("begins", Boolean(j > 0 && table.columnGroup?.(j)));
  const folded = state.folded && cell.run >= 0 && PICTURES[cell.picture] === LAST ? foldedOf(cell, measure, table.kind === "ranking") : null;
  const content = `${cell.run} ${cell.facet} ${cell.picture} ${state.measure} ${table.kind} ${state.as} ${state.folded}`;
  const own = cell.run < 0 ? null : noteOf(cell), marked = own ? `${own.star ? "★" : ""}${own.note ? "✎" : ""}` : "";
  if (element.dataset.content === content + marked) return;
  element.dataset.content = content + marked;
  const keys = SWEPT.map((axis) => axis.key).filter((key) => key !== state.folded);
  const whole = folded && table.kind === "ranking"; // of all facets: the picture is one of them
  const names = describe(place, [...keys, "facet", "picture"]);
  const why = cell.run < 0 ? "not in this sweep" : RUNS[cell.run].status === "completed" ? "" : `${whyOf(cell).word}. ${whyOf(cell).reason}`;
  const doubt = facetOf(cell)?.marks ?? "";
  element.setAttribute("aria-label", `${names}${doubt ? `, ${doubt}` : ""}${value === null ? "" : `, ${spoken(state.measure)} ${figure(value)}`}${why ? `, ${why}` : ""}${own?.star ? ", starred" : ""}${own?.note ? `, note: ${own.note}` : ""}`);
  element.title = [names, doubt, folded && seedsInWords(folded), why, own?.note].filter(Boolean).join("\n");
  const frame = make("div", { class: "frame" }, [shownOf(cell, value)]);
  frame.style.height = `${state.size}px`;
  element.replaceChildren(frame);
  if (doubt) frame.append(make("span", { class: "doubt", "aria-hidden": "true", text: doubt, dir: "auto" }));
  if (marked) frame.append(make("span", { class: "star", "aria-hidden": "true", text: marked }));
  const caption = make("div", { class: "caption" });
  if (value !== null) {
    const [low, high] = MEASURES[measure].scale, bar = make("span", { class: "bar", "aria-hidden": "true" }, [make("i")]);
    const share = high > low ? (value - low) / (high - low) : 0;
    bar.firstChild.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
    caption.append(make("span", { class: "value", text: folded ? withHalf(folded) : figure(value) }), bar);
  }
  element.append(caption);
  if (table.kind !== "ranking") return;
  const told = whole ? keys : [...keys, "facet"], label = make("div", { class: "label", dir: "auto", text: labelOf(place, told), title: describe(place, told) });
  label.style.webkitLineClamp = labelLines();
  element.append(label);
}

const samePlace = (one, other) => Boolean(one && other) && AXES.every((axis) => one[axis.key] === other[axis.key]);

function goTo(row, column) {
  if (!table.placeAt(row, column)) return false;
  active = { row, column };
  reveal();
  drawCells();
  focusActive();
  return true;
}

function reveal() {
  const top = active.row * cellHeight(), left = active.column * cellWidth();
  const height = scroller.clientHeight - headHeight(), width = scroller.clientWidth - sideWidth();
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  else if (top + cellHeight() > scroller.scrollTop + height) scroller.scrollTop = top + cellHeight() - height;
  if (left < scroller.scrollLeft) scroller.scrollLeft = left;
  else if (left + cellWidth() > scroller.scrollLeft + width) scroller.scrollLeft = left + cellWidth() - width;
}

function focusActive() {
  drawnRows.get(active.row)?.cells.get(active.column)?.focus({ preventScroll: true });
}

let drawing = 0;
scroller.addEventListener("scroll", () => {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    drawCells();
  });
});
new ResizeObserver(() => {
  if (!table) return;
  if (table.kind === "ranking" || table.side !== widthOfLabels()) rebuild();
  else drawCells();
}).observe(scroller);

// Where a click or a screen reader puts the focus, the keyboard goes on.
grid.addEventListener("focusin", (event) => {
  const element = event.target.closest(".cell");
  if (!element || (Number(element.dataset.row) === active.row && Number(element.dataset.column) === active.column)) return;
  active = { row: Number(element.dataset.row), column: Number(element.dataset.column) };
  drawCells();
});
grid.addEventListener("click", (event) => {
  const element = event.target.closest(".cell");
  if (!element) return;
  active = { row: Number(element.dataset.row), column: Number(element.dataset.column) };
  openActive();
});
function openActive() {
  const place = table.placeAt(active.row, active.column);
  drawCells();
  if (place && cellAt(place).run >= 0) set({ open: place }, { step: true });
}
