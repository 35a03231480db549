// ---- comparison: two to six pictures, with one zoom: side by side, divider, fade, blink, difference ----------------

const comparison = byId("comparison");
const LETTERS = ["a", "b", "c", "d", "e", "f"];
const MODES = ["divider", "side", "fade", "blink", "difference"];
const LENS = { most: 16, step: 1.4 };
const BLINK_MS = 700;

let blinking = 0, blinked = 0;

function showComparison() {
  if (!state.compared) {
    clearInterval(blinking);
    blinking = 0;
    if (comparison.open) comparison.close();
    return;
  }
  showSides();
  for (const mode of MODES) byId(`mode-${mode}`).setAttribute("aria-pressed", String(state.mode === mode));
  showFrames();
  const sliding = state.mode === "divider" || state.mode === "fade";
  byId("split-field").hidden = !sliding;
  byId("split").value = state.split;
  byId("split-value").textContent = `${state.split} % A`;
  byId("amplify-field").hidden = state.mode !== "difference";
  byId("amplify").value = state.amplify;
  byId("amplify-value").textContent = `× ${state.amplify}`;
  byId("lens-value").textContent = `${Math.round(100 * state.lens.zoom)} %`;
  byId("mode-about").textContent = {
    divider: state.compared.length > 2 ? "A on the left of the edge, B on its right." : "",
    side: "", fade: "B over A.", blink: "One after the other, in the same place.",
    difference: `|picture − A| in every colour, ${state.amplify === 1 ? "as it is" : `times ${state.amplify}`}: black is no difference.`,
  }[state.mode];
  if (state.mode === "blink") blinking ||= setInterval(blink, BLINK_MS);
  else clearInterval(blinking), (blinking = 0);
  showComparedTables();
  if (!comparison.open) comparison.showModal();
}

const letterOf = (i) => LETTERS[i].toUpperCase();

// What each mode lays over what: lists of the pictures in each frame.
function framesOf(mode, count) {
  const all = Array.from({ length: count }, (_, i) => i);
  if (mode === "side") return all.map((i) => [i]);
  if (mode === "blink") return [all];
  if (mode === "difference") return all.slice(1).map((i) => [0, i]);
  return [[0, 1]];
}

function showFrames() {
  const holder = byId("over"), frames = framesOf(state.mode, state.compared.length);
  const cells = state.compared.map(cellAt);
  const content = `${state.mode} ${cells.map((cell) => `${cell.run} ${cell.facet} ${cell.picture}`).join()}`;
  if (holder.dataset.content !== content) {
    holder.dataset.content = content;
    holder.className = `over ${state.mode} of-${frames.length}`;
    holder.replaceChildren(...frames.map((layers) => frameOf(layers, cells)));
  }
  for (const frame of holder.children) {
    const layers = [...frame.querySelectorAll(".layer")];
    if (state.mode === "divider") layers[1].style.clipPath = `inset(0 0 0 ${state.split}%)`;
    if (state.mode === "fade") layers[1].style.opacity = String(1 - state.split / 100);
    frame.querySelector(".layers").style.filter = state.mode === "difference" && state.amplify > 1 ? `brightness(${state.amplify})` : "";
    const { x, y, zoom } = state.lens;
    for (const image of frame.querySelectorAll("img")) {
      image.style.transform = zoom > 1 ? `scale(${zoom}) translate(${50 - 100 * x}%, ${50 - 100 * y}%)` : "";
      image.style.imageRendering = zoom >= 4 ? "pixelated" : "";
    }
    const edge = frame.querySelector(".edge");
    if (edge) edge.style.left = `${state.split}%`;
  }
}

function frameOf(layers, cells) {
  const stack = make("div", { class: "layers" }, layers.map((i) => {
    const image = picture(cells[i], { eager: true });
    if (image.tagName === "IMG") image.alt = `${letterOf(i)}: ${describe(state.compared[i], AXES.map((axis) => axis.key))}`;
    return make("div", { class: "layer", id: `picture-${LETTERS[i]}${state.mode === "difference" && i === 0 ? `-${layers[1]}` : ""}`, "data-letter": letterOf(i) }, [image]);
  }));
  const words = { side: (i) => [`${letterOf(i)} ${whatTellsApart(i)}`], difference: (_, i) => [`${letterOf(i)} − A`], blink: () => ["A"] }[state.mode] ?? (() => ["A", "B"]);
  const tags = words(...layers).map((text, i) => make("span", { class: `tag ${i ? "b" : "a"}`, text }));
  return make("div", { class: "pair" }, [stack, ...(state.mode === "divider" ? [make("div", { class: "edge" })] : []), ...tags]);
}

// The values by which a picture differs from the others that it is held against.
function whatTellsApart(i) {
  const keys = AXES.map((axis) => axis.key).filter((key) => new Set(state.compared.map((place) => place[key])).size > 1);
  return keys.map((key) => (key === "facet" ? `facet ${state.compared[i].facet}` : valueLabel(axisOf(key), state.compared[i][key]))).join(" · ");
}

function blink() {
  const layers = [...byId("over").querySelectorAll(".layer")];
  blinked = (blinked + 1) % layers.length;
  layers.forEach((layer, i) => (layer.style.visibility = i === blinked ? "visible" : "hidden"));
  byId("over").querySelector(".tag").textContent = letterOf(blinked);
}

function showComparedTables() {
  const cells = state.compared.map(cellAt), two = cells.length === 2;
  let unmeasured = false;
  const rows = MEASURES.map((measure, i) => {
    const values = cells.map((cell) => measureOfPicture(cell, i, ownMeasure));
    if (values.every((value) => value === null)) return null;
    unmeasured ||= values.some((value) => value === null);
    return [spoken(measure.name), ...values.map(figure), ...(two ? [changeOf(values[1], values[0], measure)] : [])];
  }).filter(Boolean);
  const letters = cells.map((_, i) => letterOf(i));
  byId("comparison-measures").replaceChildren(
    rows.length ? tableOf(["measure", ...letters, ...(two ? ["change"] : [])], rows, "plain figures") : "",
    make("p", { class: "about", text: unmeasured ? "Pictures on the way, at a step, are not measured." : "" }),
  );
  const runs = cells.map((cell) => cell.run);
  const differing = runs.includes(-1) ? [] : settingsOf(runs);
  byId("comparison-differences").replaceChildren(
    differing.length ? tableOf(["setting", ...letters], differing.map(([key, ...values]) => [key, ...values.map(plain)])) : make("p", { class: "about", text: "None: they are of the same run, or one is not in this sweep." }),
  );
}

// Keys that do not have the same value in all of the runs: [key, value, value, …].
function settingsOf(runs) {
  const rows = new Map();
  runs.slice(1).forEach((run) => {
    for (const [key] of settingsThatDiffer(runs[0], run)) rows.set(key, null);
  });
  const configs = runs.map(configOf), at = (key) => SWEPT.findIndex((axis) => axis.key === key);
  return [...rows.keys()].map((key) => [key, ...runs.map((run, i) => (Object.keys(configs[i]).length ? configs[i][key] : SWEPT[at(key)]?.values[RUNS[run].at[at(key)]]))]);
}

// A menu for each axis and picture: any cell can be chosen for each.
function showSides() {
  const holder = byId("sides"), axes = AXES.filter((axis) => axis.values.length > 1), count = state.compared.length;
  const id = (i, axis) => `${LETTERS[i]}-${AXES.indexOf(axis)}`;
  if (holder.dataset.content !== String(count)) {
    holder.dataset.content = String(count);
    holder.style.gridTemplateColumns = `minmax(64px, auto) repeat(${count}, minmax(${count > 2 ? 76 : 0}px, 1fr))`;
    holder.replaceChildren(make("span"), ...state.compared.map((_, i) => headOf(i, count)));
    for (const axis of axes) {
      holder.append(make("span", { text: axis.key, dir: "auto" }));
      for (let i = 0; i < count; i++) {
        const select = make("select", { id: id(i, axis), "aria-label": `${letterOf(i)}: ${axis.key}` }, axis.values.map((value, v) => make("option", { value: v, text: value })));
        select.addEventListener("change", () => setCompared(i, { ...state.compared[i], [axis.key]: Number(select.value) }));
        holder.append(select);
      }
    }
    const along = axes.filter((axis) => axis.key !== "picture" || axis.values.length > 2);
    byId("fill").replaceChildren(make("option", { value: "", text: "all values of …" }), ...along.map((axis) => make("option", { value: axis.key, text: axis.key })));
  }
  for (const axis of axes) state.compared.forEach((place, i) => (byId(id(i, axis)).value = String(place[axis.key])));
  byId("add-picture").disabled = count >= LETTERS.length;
  byId("fill").value = "";
}

function headOf(i, count) {
  const head = make("b", { text: letterOf(i) });
  if (count < 3) return head;
  const drop = make("button", { type: "button", class: "quiet small", "aria-label": `Take ${letterOf(i)} away`, text: "✕" });
  drop.addEventListener("click", () => set({ compared: state.compared.filter((_, other) => other !== i) }));
  return make("span", { class: "letter" }, [head, drop]);
}

const setCompared = (i, place) => set({ compared: state.compared.map((one, other) => (other === i ? place : one)) });

byId("split").addEventListener("input", (event) => set({ split: Number(event.target.value) }));
byId("amplify").addEventListener("input", (event) => set({ amplify: Number(event.target.value) }));
byId("exchange").addEventListener("click", () => set({ compared: [state.compared[1], state.compared[0], ...state.compared.slice(2)] }));
byId("add-picture").addEventListener("click", () => set({ compared: [...state.compared, { ...state.compared.at(-1) }], mode: "side" }));
byId("fill").addEventListener("change", (event) => {
  const axis = axisOf(event.target.value);
  if (!axis) return;
  // from A on, as many as can be held together
  const first = Math.max(0, Math.min(state.compared[0][axis.key], axis.values.length - LETTERS.length));
  const values = axis.values.map((_, i) => i).slice(first, first + LETTERS.length);
  const from = cellAt(state.compared[0]);
  const compared = values.map((i) => {
    const place = { ...state.compared[0], [axis.key]: i };
    // the same kind of photographs, whatever number it has there
    return axis.key === "facet" ? place : { ...place, facet: sameKind(from, cellAt(place).run) ?? place.facet };
  });
  set({ compared, mode: "side" });
});
for (const mode of MODES) byId(`mode-${mode}`).addEventListener("click", () => set({ mode }));

// ---- one zoom for all: wheel, dragging, buttons and keys

function lensTo(zoom, x = state.lens.x, y = state.lens.y) {
  zoom = Math.min(LENS.most, Math.max(1, zoom));
  const within = (at) => Math.min(1 - 0.5 / zoom, Math.max(0.5 / zoom, at)); // the picture fills its frame
  set({ lens: { zoom, x: within(x), y: within(y) } });
}

const lensBy = (across, down) => lensTo(state.lens.zoom, state.lens.x + across / state.lens.zoom, state.lens.y + down / state.lens.zoom);
for (const [word, to] of [["nearer", () => state.lens.zoom * LENS.step], ["farther", () => state.lens.zoom / LENS.step], ["all", () => 1]])
  comparison.querySelector(`[data-lens=${word}]`).addEventListener("click", () => lensTo(to()));

// In the divider the edge follows the pointer; else, and with Shift, the pictures do.
function follow(event) {
  const box = byId("over").getBoundingClientRect();
  set({ split: Math.round(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width))) });
}
const moves = (event) => state.mode !== "divider" || event.shiftKey;
byId("over").addEventListener("pointerdown", (event) => {
  byId("over").setPointerCapture(event.pointerId);
  if (!moves(event)) follow(event);
});
byId("over").addEventListener("pointermove", (event) => {
  if (!(event.buttons & 1)) return;
  if (!moves(event)) return follow(event);
  const side = byId("over").firstChild.clientWidth;
  if (state.lens.zoom > 1) lensBy(-event.movementX / side, -event.movementY / side);
});
byId("over").addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = (event.target.closest(".pair") ?? byId("over").firstChild).getBoundingClientRect();
  const { x, y, zoom } = state.lens, next = Math.min(LENS.most, Math.max(1, zoom * LENS.step ** (-event.deltaY / 120)));
  const from = [(event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5];
  lensTo(next, x + from[0] * (1 / zoom - 1 / next), y + from[1] * (1 / zoom - 1 / next));
}, { passive: false });

const COMPARISON_KEYS = {
  "+": () => lensTo(state.lens.zoom * LENS.step),
  "-": () => lensTo(state.lens.zoom / LENS.step),
  0: () => lensTo(1),
  m: () => set({ mode: MODES[(MODES.indexOf(state.mode) + 1) % MODES.length] }),
};
function comparisonKey(event) {
  const arrows = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
  if (event.key in COMPARISON_KEYS) COMPARISON_KEYS[event.key]();
  else if (event.key in arrows && event.target === byId("over") && state.lens.zoom > 1) lensBy(...arrows[event.key]);
  else return false;
  return true;
}

// In the grid: the first cell is marked, the second is compared with it.
function markActive() {
  const place = table.placeAt(active.row, active.column);
  if (!place || cellAt(place).run < 0) return;
  if (!state.mark) set({ mark: place });
  else if (samePlace(state.mark, place)) set({ mark: null });
  else set({ compared: [state.mark, place], mark: null }, { step: true });
}
