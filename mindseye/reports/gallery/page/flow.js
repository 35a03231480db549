// ---- flow: facets along one swept setting, a column for each value, ribbons for the photographs that they share ----

const FLOW = { picture: 40, bar: 7, gap: 10, least: 46, top: 30, across: 168, perPhotograph: 2.6, most: 420, margin: 72 };

// The swept settings along which facets change come first: k and the loss leave them as they are.
function flowAxes() {
  const changes = (axis) => {
    const seen = new Set(axis.values.map((_, i) => RUNS[cellAt({ ...state.held, [axis.key]: i }).run]?.map).filter((map) => map !== null && map !== undefined));
    return seen.size > 1;
  };
  return SWEPT.filter((axis) => axis.values.length > 1).map((axis) => ({ axis, changes: changes(axis) }));
}

function flowAxis() {
  const axes = flowAxes();
  return (axes.find(({ axis }) => axis.key === state.along) ?? axes.find(({ changes }) => changes) ?? axes[0])?.axis ?? null;
}

// {columns: [{label, run, map, facets}], missing: labels of cells without facets}
function flowColumns(axis) {
  const columns = [], missing = [];
  axis.values.forEach((value, i) => {
    const run = cellAt({ ...state.held, [axis.key]: i }).run, map = mapOf(run);
    if (map) columns.push({ label: value, run, map });
    else missing.push(value);
  });
  return { columns, missing };
}

function flowBetween(one, other) {
  if (one.map.number === other.map.number)
    return { ribbons: one.map.sizes.map((size, c) => [c, c, size, 1, 1]), words: ["the same facets"], chance: null };
  return maps().flows[`${one.map.number}-${other.map.number}`] ?? null;
}

function showFlow() {
  const axes = flowAxes(), axis = flowAxis(), select = byId("along");
  const words = axes.map(({ axis: one, changes }) => `${one.key}${changes ? "" : " (the same facets)"}`);
  if (select.dataset.content !== words.join("\n")) {
    select.dataset.content = words.join("\n");
    select.replaceChildren(...axes.map((one, i) => make("option", { value: one.axis.key, text: words[i] })));
  }
  select.value = axis?.key ?? "";
  select.closest("label").hidden = !axis;
  const { columns, missing } = axis ? flowColumns(axis) : { columns: [], missing: [] };
  const notes = [];
  if (!axis) notes.push("One run has one set of facets: a flow needs a sweep over layers, networks, C or seeds.");
  else if (columns.length < 2) notes.push(`Along ${axis.key} fewer than two cells keep their facets.`);
  else if (new Set(columns.map(({ map }) => map.number)).size === 1) notes.push(`All these cells look at the same facets: along ${axis.key} nothing splits or merges.`);
  if (columns.length && missing.length) notes.push(`Without facets, and left out: ${missing.join(", ")}.`);
  const flows = columns.slice(1).map((column, i) => flowBetween(columns[i], column));
  if (columns.length > 1 && flows.some((flow) => !flow?.ribbons.length)) notes.push("Where no ribbon is drawn the two look at different photographs.");
  byId("flow-notes").textContent = notes.join(" ");
  byId("flow-figure").replaceChildren(...(columns.length > 1 ? [flowPicture(axis, columns, flows)] : []));
  showFlowTable(axis, columns, flows);
  showFlowAbout(columns);
}

// Each column's facets from top to bottom so that few ribbons cross, as the report's figure has them.
function flowOrder(axis, columns) {
  return columns.map(({ run }) => maps().orders[maps().runs[RUNS[run].block].orders[SWEEP ? 1 : 0][SWEPT.indexOf(axis)]]);
}

function flowPicture(axis, columns, flows) {
  const orders = flowOrder(axis, columns);
  const largest = Math.max(...columns.map(({ map }) => map.names.length));
  const scale = Math.min(FLOW.perPhotograph, FLOW.most / largest);
  const wide = FLOW.picture + 2 * FLOW.bar;
  let height = 0;
  const nodes = columns.map((column, i) => {
    let y = FLOW.top;
    const own = new Map();
    for (const c of orders[i]) {
      const high = Math.max(2, column.map.sizes[c] * scale), slot = Math.max(FLOW.least, high);
      own.set(c, { x: i * (wide + FLOW.across), y: y + (slot - high) / 2, high, middle: y + slot / 2, out: 0, in: 0 });
      y += slot + FLOW.gap;
    }
    height = Math.max(height, y);
    return own;
  });
  const width = columns.length * wide + (columns.length - 1) * FLOW.across + FLOW.margin; // the last head's
  const parts = [];
  flows.forEach((flow, i) => {
    if (!flow) return;
    const at = (c, side) => orders[i + side].indexOf(c);
    // Ribbons leave and arrive in the order of what they lead to, so that they do not cross within a facet.
    const leaving = flow.ribbons.toSorted((a, b) => at(a[0], 0) - at(b[0], 0) || at(a[1], 1) - at(b[1], 1));
    const arriving = flow.ribbons.toSorted((a, b) => at(a[1], 1) - at(b[1], 1) || at(a[0], 0) - at(b[0], 0));
    const ends = new Map();
    for (const one of leaving) {
      const node = nodes[i].get(one[0]);
      ends.set(one, { from: node.y + node.out });
      node.out += one[2] * scale;
    }
    for (const one of arriving) {
      const node = nodes[i + 1].get(one[1]);
      ends.get(one).to = node.y + node.in;
      node.in += one[2] * scale;
    }
    for (const one of leaving) parts.push(ribbonOf(columns, i, one, ends.get(one), nodes, scale, wide));
  });
  columns.forEach((column, i) => {
    const head = drawn("text", { x: i * (wide + FLOW.across), y: 14, class: "head-text" }, [short(`${column.label}`, i + 1 < columns.length ? 26 : 16)]);
    head.append(drawn("title", {}, [`${axis.key} ${column.label}`]));
    parts.push(head);
    for (const [c, node] of nodes[i]) parts.push(nodeOf(axis, column, c, node, wide));
  });
  return drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `Facets along ${axis.key}: ${columns.map(({ label: value }) => value).join(", ")}` }, parts);
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function ribbonOf(columns, i, [before, after, count, overlap, assigned], { from, to }, nodes, scale, wide) {
  const start = nodes[i].get(before), end = nodes[i + 1].get(after), thick = Math.max(0.7, count * scale);
  const x1 = start.x + wide, x2 = end.x, bend = (x1 + x2) / 2;
  const path = drawn("path", {
    d: `M${x1} ${from}C${bend} ${from} ${bend} ${to} ${x2} ${to}v${thick}C${bend} ${to + thick} ${bend} ${from + thick} ${x1} ${from + thick}Z`,
    class: assigned ? "ribbon assigned" : "ribbon", "data-kinds": `${kindOf(columns[i].run, before)} ${kindOf(columns[i + 1].run, after)}`,
  });
  path.style.fill = colourOf(kindOf(columns[i].run, before));
  path.append(drawn("title", {}, [`${columns[i].label} facet ${before} → ${columns[i + 1].label} facet ${after}: ${count} photographs, overlap ${figure(overlap)}${assigned ? ", assigned" : ""}`]));
  return path;
}

function nodeOf(axis, column, c, node, wide) {
  const kind = kindOf(column.run, c), size = column.map.sizes[c];
  const bars = [0, wide - FLOW.bar].map((x) => {
    const bar = drawn("rect", { x: node.x + x, y: node.y, width: FLOW.bar, height: node.high });
    bar.style.fill = colourOf(kind);
    return bar;
  });
  const left = node.x + FLOW.bar, top = node.middle - FLOW.picture / 2;
  const source = sourceOf({ run: column.run, facet: c, picture: PICTURES.indexOf(LAST) });
  const parts = [...bars, drawn("rect", { x: left, y: top, width: FLOW.picture, height: FLOW.picture, class: "blank" })];
  if (source) parts.push(drawn("image", { href: source, x: left, y: top, width: FLOW.picture, height: FLOW.picture, preserveAspectRatio: "xMidYMid slice" }));
  parts.push(drawn("text", { x: left + 3, y: top + 12, class: "number" }, [String(c)]));
  parts.push(drawn("title", {}, [`${axis.key} ${column.label}, facet ${c}: ${size} photographs`]));
  const group = drawn("g", { class: "node", tabindex: "0", role: "button", "aria-label": `${axis.key} ${column.label}, facet ${c}, ${size} photographs`, "aria-pressed": String(state.kind === kind), "data-kind": kind }, parts);
  const choose = () => set({ kind: state.kind === kind ? null : kind });
  group.addEventListener("click", choose);
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    const label = group.getAttribute("aria-label");
    choose();
    byId("flow-figure").querySelector(`[aria-label="${CSS.escape(label)}"]`)?.focus();
  });
  return group;
}

// Only what is of the kind that is chosen stays strong.
function showFlowAbout(columns) {
  for (const part of byId("flow-figure").querySelectorAll("[data-kinds], [data-kind]")) {
    const own = (part.dataset.kinds ?? part.dataset.kind).split(" ").map(Number);
    part.classList.toggle("dim", state.kind !== null && !own.includes(state.kind));
  }
  const words = make("div");
  for (const column of columns)
    column.map.sizes.forEach((size, c) => {
      if (state.kind === null || kindOf(column.run, c) !== state.kind) return;
      const open = make("button", { type: "button", class: "small", text: `Open facet ${c}` });
      open.addEventListener("click", () => set({ open: placeOf({ run: column.run, facet: c, picture: PICTURES.indexOf(LAST) }) }, { step: true }));
      words.append(make("p", { dir: "auto" }, [`${column.label}: `, markOf(state.kind), ` facet ${c}, ${size} photographs. `, open]));
    });
  byId("flow-about").hidden = columns.length < 2;
  byId("flow-about").replaceChildren(words.children.length ? words : make("p", { class: "about", text: "Choose a facet to follow it. A ribbon is as thick as the number of photographs that two facets share, in the colour of the facet it comes from." }));
}

function showFlowTable(axis, columns, flows) {
  const rows = flows.map((flow, i) => {
    const pairs = (flow?.ribbons ?? []).filter((one) => one[4]).map(([before, after, , overlap]) => `${before} → ${after} (${overlap.toFixed(2)})`);
    const chance = flow?.chance ? `; by chance ${flow.chance.toFixed(2)}` : "";
    return [`${columns[i].label} → ${columns[i + 1].label}`, flow?.words.join("; ") ?? "not known", pairs.join(", ") + chance];
  });
  byId("flow-table").replaceChildren(rows.length ? tableOf([axis.key, "what becomes of the facets", "assigned one to one, with their overlap |A∩B| / |A∪B|"], rows) : "");
}

byId("along").addEventListener("change", (event) => set({ along: event.target.value }));
