// ---- map: the plane of t-SNE, photographs as points, facets as hulls with their pictures at the centres ------------

const ROOM = 0.9; // of a hull's photographs, the nearest to its centre: far ones would stretch it over others
const TILE = 52, SMALL_COPY = 44, NEAR = 12; // pixels: pictures at the centres, photographs, how far a pointer may miss
const LEAST_SPACING = 40; // pixels between photographs, about, from which on they are shown as pictures
const ZOOM = { least: 1, most: 60, step: 1.4 };

const panes = [0, 1].map((side) => ({
  side, figure: byId(`map-${side}`), canvas: byId(`map-canvas-${side}`), run: -1, map: null, hits: [], tiles: [], drag: new Map(),
}));
const readImages = new Map();

function imageAt(source) {
  if (!readImages.has(source)) {
    const image = new Image();
    image.addEventListener("load", () => drawMapsSoon(), { once: true });
    image.src = source;
    readImages.set(source, image);
  }
  const image = readImages.get(source);
  return image.complete && image.naturalWidth ? image : null;
}

// What the second map may differ in: one value of one swept setting.
function besideMaps() {
  return SWEPT.flatMap((axis, i) => axis.values.map((value, j) => ({ word: `${axis.key}=${value}`, axis, i, j })))
    .filter(({ axis, j }) => axis.values.length > 1 && j !== state.held[axis.key]);
}

function showMap() {
  const choices = besideMaps(), select = byId("map-beside");
  const words = choices.map(({ word }) => word);
  if (select.dataset.content !== words.join("\n")) {
    select.dataset.content = words.join("\n");
    select.replaceChildren(make("option", { value: "", text: "one map" }), ...words.map((word) => make("option", { value: word, text: word })));
  }
  const beside = choices.find(({ word }) => word === state.besideMap);
  select.value = beside ? state.besideMap : "";
  select.closest("label").hidden = choices.length === 0;
  byId("map-pictures").checked = state.mapPictures;
  const places = [state.held, beside && { ...state.held, [beside.axis.key]: beside.j }];
  for (const pane of panes) {
    const place = places[pane.side];
    pane.figure.hidden = !place;
    pane.run = place ? cellAt(place).run : -1;
    pane.map = place ? mapOf(pane.run) : null;
    if (place) showPane(pane, place);
  }
  byId("map-figures").classList.toggle("two", Boolean(beside));
  showMapAbout();
  drawMaps();
}

function showPane(pane, place) {
  const named = describe(place, SWEPT.filter((axis) => axis.values.length > 1).map((axis) => axis.key));
  pane.figure.querySelector("figcaption").textContent = named || DATA.title;
  const why = pane.figure.querySelector(".why");
  why.hidden = Boolean(pane.map);
  why.textContent = pane.map ? "" : noMapReason(pane.run);
  pane.canvas.hidden = !pane.map;
  const list = pane.figure.querySelector(".kinds");
  list.replaceChildren();
  if (!pane.map) return;
  const { names, sizes } = pane.map;
  pane.canvas.setAttribute("aria-label", `Map of ${names.length} photographs in ${sizes.length} facets${named ? `, ${named}` : ""}`);
  list.append(...sizes.map((size, c) => {
    const kind = kindOf(pane.run, c), chosen = state.kind === kind;
    const button = make("button", { type: "button", class: "small kind", "aria-pressed": chosen, "data-facet": c }, [markOf(kind), make("span", { text: `facet ${c}` }), make("small", { text: `${size}` })]);
    button.title = `${size} photographs`;
    button.addEventListener("click", () => set({ kind: chosen ? null : kind }));
    return button;
  }));
}

// ---- drawing

const lookOf = (pane) => (state.looks[pane.side] ??= { x: 500, y: 500, zoom: 1 });

function scaleOf(pane) {
  const box = pane.canvas.getBoundingClientRect(), { x, y, zoom } = lookOf(pane);
  const size = (Math.min(box.width, box.height) / 1120) * zoom;
  // t-SNE's second axis goes upwards, as in the figure for print
  return { size, box, x: (value) => box.width / 2 + (value - x) * size, y: (value) => box.height / 2 - (value - y) * size };
}

let mapFrame = 0;
function drawMapsSoon() {
  if (state.view === "map") mapFrame ||= requestAnimationFrame(() => ((mapFrame = 0), drawMaps()));
}
function drawMaps() {
  for (const pane of panes) if (pane.map && !pane.figure.hidden) drawPane(pane);
}

function drawPane(pane) {
  const { canvas, map, run } = pane, to = scaleOf(pane), ratio = devicePixelRatio || 1;
  if (!to.box.width) return;
  canvas.width = Math.round(to.box.width * ratio);
  canvas.height = Math.round(to.box.height * ratio);
  const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
  const ink = style.getPropertyValue("--ink"), ground = style.getPropertyValue("--ground");
  pen.scale(ratio, ratio);
  const inside = (x, y, edge) => x > -edge && y > -edge && x < to.box.width + edge && y < to.box.height + edge;
  const dim = (c) => state.kind !== null && kindOf(run, c) !== state.kind;
  hullsOf(map).forEach((hull, c) => {
    const kind = kindOf(run, c), line = new Path2D();
    hull.forEach((i, place) => line[place ? "lineTo" : "moveTo"](to.x(map.x[i]), to.y(map.y[i])));
    line.closePath();
    pen.globalAlpha = dim(c) ? 0.04 : 0.14;
    pen.fillStyle = pen.strokeStyle = colourOf(kind);
    pen.fill(line);
    pen.globalAlpha = dim(c) ? 0.15 : 0.8;
    pen.stroke(line);
  });
  // From each centre to the photographs that the facet is blended of, thicker for a larger weight.
  map.centres.forEach(([x, y], c) => {
    if (dim(c)) return;
    const blended = blendedOf(run, c).filter(([name]) => map.at.has(name)), most = blended[0]?.[1] || 1;
    pen.globalAlpha = state.kind === null ? 0.55 : 1;
    pen.strokeStyle = ink;
    for (const [name, weight] of blended) {
      const i = map.at.get(name);
      pen.lineWidth = 0.4 + (1.6 * weight) / most;
      pen.beginPath();
      pen.moveTo(to.x(x), to.y(y));
      pen.lineTo(to.x(map.x[i]), to.y(map.y[i]));
      pen.stroke();
    }
  });
  pen.lineWidth = 1;
  pane.hits = [];
  const marks = COLOURS.map((_, kind) => new Path2D(shapeOf(kind)));
  const small = Math.min(1, Math.max(0.45, 26 / Math.sqrt(map.names.length))) * Math.min(1.4, Math.sqrt(lookOf(pane).zoom));
  for (let i = 0; i < map.names.length; i++) {
    const x = to.x(map.x[i]), y = to.y(map.y[i]), kind = kindOf(run, map.labels[i]);
    if (!inside(x, y, 8)) continue;
    pane.hits.push({ i, x, y });
    pen.globalAlpha = dim(map.labels[i]) ? 0.15 : 0.9;
    pen.fillStyle = colourOf(kind);
    pen.save();
    pen.translate(x, y);
    pen.scale(small, small);
    pen.fill(marks[kind] ?? (marks[kind] = new Path2D(shapeOf(kind))));
    pen.restore();
  }
  pen.globalAlpha = 1;
  drawPhotographs(pane, pen, to, dim);
  drawCentres(pane, pen, to, dim, ink, ground);
  drawChosen(pane, pen, to, ink, ground);
}

// Photographs of which there is a copy, where there is room: those that count most first, none over another.
function drawPhotographs(pane, pen, to, dim) {
  const { map, run } = pane;
  if ((900 * to.size) / Math.sqrt(map.names.length) < LEAST_SPACING) return;
  const copies = copiesOf(run), taken = [];
  const weights = new Map(map.centres.flatMap((_, c) => blendedOf(run, c)));
  const order = pane.hits.filter(({ i }) => copies.has(map.names[i])).toSorted((a, b) => (weights.get(map.names[b.i]) ?? 0) - (weights.get(map.names[a.i]) ?? 0));
  for (const { i, x, y } of order) {
    if (dim(map.labels[i]) || taken.some((one) => Math.abs(one.x - x) < SMALL_COPY && Math.abs(one.y - y) < SMALL_COPY)) continue;
    const image = imageAt(copies.get(map.names[i]));
    taken.push({ x, y });
    if (!image) continue;
    pen.fillStyle = colourOf(kindOf(run, map.labels[i]));
    pen.fillRect(x - SMALL_COPY / 2 - 2, y - SMALL_COPY / 2 - 2, SMALL_COPY + 4, SMALL_COPY + 4);
    drawSquare(pen, image, x - SMALL_COPY / 2, y - SMALL_COPY / 2, SMALL_COPY);
  }
}

function drawSquare(pen, image, left, top, side) {
  const cut = Math.min(image.naturalWidth, image.naturalHeight);
  pen.drawImage(image, (image.naturalWidth - cut) / 2, (image.naturalHeight - cut) / 2, cut, cut, left, top, side, side);
}

// A cross at every centre and the facet's picture beside it, moved until no two lie over each other.
function drawCentres(pane, pen, to, dim, ink, ground) {
  const { map, run } = pane;
  const points = map.centres.map(([x, y], c) => ({ c, x: to.x(x), y: to.y(y) }));
  pane.tiles = [];
  if (state.mapPictures) {
    const tiles = points.map(({ c, x, y }) => ({ c, left: x, top: y - TILE / 2 - 12, from: { x, y } }));
    apart(tiles, TILE + 6, to.box);
    for (const tile of tiles) {
      const kind = kindOf(run, tile.c);
      pen.globalAlpha = dim(tile.c) ? 0.35 : 1;
      pen.strokeStyle = ink;
      pen.beginPath();
      pen.moveTo(tile.from.x, tile.from.y);
      pen.lineTo(tile.left, tile.top);
      pen.stroke();
      pen.fillStyle = colourOf(kind);
      pen.fillRect(tile.left - TILE / 2 - 3, tile.top - TILE / 2 - 3, TILE + 6, TILE + 6);
      const source = sourceOf({ run, facet: tile.c, picture: PICTURES.indexOf(LAST) }), image = source && imageAt(source);
      if (image) drawSquare(pen, image, tile.left - TILE / 2, tile.top - TILE / 2, TILE);
      pane.tiles.push(tile);
    }
  }
  for (const { c, x, y } of points) {
    pen.globalAlpha = dim(c) ? 0.35 : 1;
    for (const [width, colour] of [[4, ground], [1.8, ink]]) {
      pen.lineWidth = width;
      pen.strokeStyle = colour;
      pen.beginPath();
      pen.moveTo(x - 5, y - 5), pen.lineTo(x + 5, y + 5), pen.moveTo(x - 5, y + 5), pen.lineTo(x + 5, y - 5);
      pen.stroke();
    }
    label(pen, String(c), x + 8, y + 4, ink, ground);
  }
  pen.globalAlpha = 1;
  pen.lineWidth = 1;
}

function label(pen, text, x, y, ink, ground) {
  pen.font = "600 12px system-ui, sans-serif";
  pen.lineWidth = 3;
  pen.strokeStyle = ground;
  pen.strokeText(text, x, y);
  pen.fillStyle = ink;
  pen.fillText(text, x, y);
}

function apart(tiles, side, box) {
  for (let round = 0; round < 60; round++)
    for (const one of tiles)
      for (const other of tiles) {
        if (one.c >= other.c) continue;
        const across = one.left - other.left, down = one.top - other.top;
        const wide = side - Math.abs(across), high = side - Math.abs(down);
        if (wide <= 0 || high <= 0) continue;
        const key = wide < high ? "left" : "top", by = (Math.min(wide, high) / 2 + 0.5) * ((key === "left" ? across : down) < 0 ? -1 : 1);
        one[key] += by;
        other[key] -= by;
      }
  const within = (value, most) => Math.min(most - side / 2, Math.max(side / 2, value));
  for (const tile of tiles) {
    // a facet that is out of sight takes its picture with it
    if (tile.from.x < 0 || tile.from.y < 0 || tile.from.x > box.width || tile.from.y > box.height) continue;
    tile.left = within(tile.left, box.width);
    tile.top = within(tile.top, box.height);
  }
}

function drawChosen(pane, pen, to, ink, ground) {
  const i = pane.map.at.get(state.photograph);
  if (i === undefined) return;
  const x = to.x(pane.map.x[i]), y = to.y(pane.map.y[i]);
  for (const [width, colour] of [[6, ground], [2.5, ink]]) {
    pen.lineWidth = width;
    pen.strokeStyle = colour;
    pen.beginPath();
    pen.arc(x, y, 11, 0, 7);
    pen.stroke();
  }
}

// Convex hulls of the photographs of each facet that lie nearest to its centre: lists of their numbers.
function hullsOf(map) {
  return (map.hulls ??= map.centres.map(([x, y], c) => {
    const own = map.labels.flatMap((label, i) => (label === c ? [i] : []));
    const far = (i) => (map.x[i] - x) ** 2 + (map.y[i] - y) ** 2;
    const kept = own.toSorted((i, j) => far(i) - far(j)).slice(0, Math.max(3, Math.ceil(ROOM * own.length)));
    return hullOf(kept.map((i) => [map.x[i], map.y[i], i])).map(([, , i]) => i);
  }));
}

// Andrew's monotone chain (1979).
function hullOf(points) {
  const sorted = points.toSorted((a, b) => a[0] - b[0] || a[1] - b[1]);
  if (sorted.length < 3) return sorted;
  const turn = (o, a, b) => (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0]);
  const half = (along) => {
    const kept = [];
    for (const point of along) {
      while (kept.length > 1 && turn(kept.at(-2), kept.at(-1), point) <= 0) kept.pop();
      kept.push(point);
    }
    return kept.slice(0, -1);
  };
  return [...half(sorted), ...half(sorted.toReversed())];
}

// ---- what is looked at

function nearestHit(pane, event) {
  const box = pane.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  const tile = pane.tiles.findLast((one) => Math.abs(one.left - x) <= TILE / 2 && Math.abs(one.top - y) <= TILE / 2);
  if (tile) return { tile };
  let best = null;
  for (const hit of pane.hits) {
    const far = Math.hypot(hit.x - x, hit.y - y);
    if (far < NEAR && (!best || far < best.far)) best = { ...hit, far };
  }
  return best;
}

// A photograph as it stands in each map: its facet, and its weight in every facet that it is blended into.
function photographAbout(name) {
  const parts = [];
  const run = panes.find((pane) => pane.map?.at.has(name))?.run;
  const source = run === undefined ? null : copiesOf(run).get(name);
  if (source) parts.push(make("img", { src: source, alt: "" }));
  const words = make("div", {}, [make("b", { text: shared().names[name], dir: "auto" })]);
  for (const pane of panes) {
    const i = pane.map?.at.get(name);
    if (i === undefined || pane.figure.hidden) continue;
    const c = pane.map.labels[i];
    const weights = pane.map.centres.flatMap((_, facet) => blendedOf(pane.run, facet).filter(([one]) => one === name).map(([, weight]) => `${figure(weight)} in facet ${facet}`));
    const where = panes[1].figure.hidden ? "" : `${pane.figure.querySelector("figcaption").textContent}: `;
    words.append(make("p", { dir: "auto" }, [where, markOf(kindOf(pane.run, c)), ` facet ${c}; `, weights.length ? `weight ${weights.join(", ")}` : "not among those blended"]));
  }
  const find = make("button", { type: "button", class: "small", text: "Facets that hold it" });
  find.addEventListener("click", () => findHolders(name));
  words.append(find);
  if (!source) words.append(make("p", { class: "about", text: "The run folders keep no small copy of it." }));
  return [...parts, words];
}

function facetAbout() {
  const words = make("div");
  for (const pane of panes) {
    if (!pane.map || pane.figure.hidden) continue;
    pane.map.sizes.forEach((size, c) => {
      if (kindOf(pane.run, c) !== state.kind) return;
      const open = make("button", { type: "button", class: "small", text: `Open facet ${c}` });
      open.addEventListener("click", () => set({ open: { ...placeOf({ run: pane.run, facet: c, picture: PICTURES.indexOf(LAST) }) } }, { step: true }));
      const where = panes[1].figure.hidden ? "" : `${pane.figure.querySelector("figcaption").textContent}: `;
      words.append(make("p", { dir: "auto" }, [where, markOf(state.kind), ` facet ${c}, ${size} photographs, blended of ${blendedOf(pane.run, c).length}. `, open]));
    });
  }
  return [words];
}

function showMapAbout() {
  const about = byId("map-about"), there = panes.some((pane) => pane.map?.at.has(state.photograph));
  const parts = there ? photographAbout(state.photograph) : state.kind !== null ? facetAbout() : [];
  about.replaceChildren(...(parts.length ? parts : [make("p", { class: "about", text: "Point at a photograph, or choose a facet. Drag to pan, turn the wheel to zoom; with the keyboard: arrows go from photograph to photograph, + and − zoom, 0 shows all." })]));
}

function lookAt(name) {
  if (state.photograph === name) return;
  state.photograph = name;
  later(toAddress());
  showMapAbout();
  drawMapsSoon();
}

function zoomBy(pane, factor, x = pane.canvas.clientWidth / 2, y = pane.canvas.clientHeight / 2) {
  const look = lookOf(pane), before = scaleOf(pane), zoom = Math.min(ZOOM.most, Math.max(ZOOM.least, look.zoom * factor));
  const size = (before.size / look.zoom) * zoom;
  // what is under the pointer stays under it
  look.x += (x - before.box.width / 2) * (1 / before.size - 1 / size);
  look.y -= (y - before.box.height / 2) * (1 / before.size - 1 / size);
  look.zoom = zoom;
  if (zoom === ZOOM.least) Object.assign(look, { x: 500, y: 500 });
  later(toAddress());
  drawMapsSoon();
}

function panBy(pane, across, down) {
  const look = lookOf(pane), { size } = scaleOf(pane);
  look.x -= across / size;
  look.y += down / size;
  later(toAddress());
  drawMapsSoon();
}

// The photograph that lies next in a direction: near, and more ahead than aside.
function nextPhotograph(pane, across, down) {
  const { map } = pane, from = map.at.get(state.photograph) ?? map.at.get(blendedOf(pane.run, 0)[0]?.[0]) ?? 0;
  if (!map.at.has(state.photograph)) return lookAt(map.names[from]);
  let best = null;
  for (let i = 0; i < map.names.length; i++) {
    const ahead = (map.x[i] - map.x[from]) * across - (map.y[i] - map.y[from]) * down;
    const aside = Math.abs((map.x[i] - map.x[from]) * down) + Math.abs((map.y[i] - map.y[from]) * across);
    if (ahead > 0 && ahead >= aside && (!best || ahead + 2 * aside < best.far)) best = { i, far: ahead + 2 * aside };
  }
  if (best) lookAt(map.names[best.i]);
}

function mapKey(event) {
  const pane = panes.find((one) => one.canvas === event.target);
  if (!pane?.map) return false;
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key in arrows) event.shiftKey ? panBy(pane, ...arrows[event.key].map((step) => -40 * step)) : nextPhotograph(pane, ...arrows[event.key]);
  else if (event.key === "+" || event.key === "-") zoomBy(pane, event.key === "+" ? ZOOM.step : 1 / ZOOM.step);
  else if (event.key === "0") zoomBy(pane, 0);
  else if (event.key === "Escape") set({ photograph: null, kind: null });
  else return false;
  return true;
}

for (const pane of panes) {
  const { canvas, drag } = pane;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoomBy(pane, ZOOM.step ** (-event.deltaY / 120), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    drag.set(event.pointerId, { x: event.clientX, y: event.clientY, moved: 0 });
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = drag.get(event.pointerId);
    if (!before) {
      const hit = nearestHit(pane, event);
      canvas.style.cursor = hit ? "pointer" : "grab";
      if (hit && !hit.tile) lookAt(pane.map.names[hit.i]);
      return;
    }
    const other = [...drag].find(([id]) => id !== event.pointerId)?.[1];
    if (other) zoomBy(pane, Math.hypot(event.clientX - other.x, event.clientY - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y)));
    else panBy(pane, event.clientX - before.x, event.clientY - before.y);
    const moved = before.moved + Math.abs(event.clientX - before.x) + Math.abs(event.clientY - before.y);
    drag.set(event.pointerId, { x: event.clientX, y: event.clientY, moved });
  });
  canvas.addEventListener("pointerup", (event) => {
    const before = drag.get(event.pointerId);
    drag.delete(event.pointerId);
    if (!before || before.moved > 4) return;
    const hit = nearestHit(pane, event);
    if (hit?.tile) set({ kind: state.kind === kindOf(pane.run, hit.tile.c) ? null : kindOf(pane.run, hit.tile.c), photograph: null });
    else if (hit) lookAt(pane.map.names[hit.i]);
    else set({ kind: null, photograph: null });
  });
  canvas.addEventListener("pointercancel", (event) => drag.delete(event.pointerId));
  new ResizeObserver(() => drawMapsSoon()).observe(canvas);
  for (const [word, factor] of [["nearer", ZOOM.step], ["farther", 1 / ZOOM.step], ["all", 0]])
    pane.figure.querySelector(`[data-zoom=${word}]`).addEventListener("click", () => zoomBy(pane, factor));
}
byId("map-beside").addEventListener("change", (event) => set({ besideMap: event.target.value }));
byId("map-pictures").addEventListener("change", (event) => set({ mapPictures: event.target.checked }));
