// ---- details: the large view of one cell ---------------------------------------------------------------------------

const large = byId("large");
const SIDES = { left: [0, -1], right: [0, 1], above: [-1, 0], below: [1, 0] };
const ARROWS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "above", ArrowDown: "below" };

// The cell beside a place on one side, in the order that the grid has now; null at the edge.
function neighbour(place, side) {
  const here = table.find(place);
  if (!here) return null;
  const [down, right] = SIDES[side];
  const there = table.placeAt(here.row + down, here.column + right);
  if (!there) return null;
  // What the grid does not lay out stays as it is here: beside step 20 of facet 3 stands step 20 of facet 3.
  const next = table.kind === "ranking" ? { ...there, picture: place.picture } : { ...place };
  for (const axis of table.axes) next[axis.key] = there[axis.key];
  return cellAt(next).run < 0 ? null : next;
}

function besideSide(place) {
  const sides = Object.keys(SIDES).filter((side) => neighbour(place, side));
  if (sides.includes(state.beside)) return state.beside;
  return sides.find((side) => facetOf(cellAt(neighbour(place, side)))) ?? sides[0] ?? null;
}

function configOf(run) {
  const details = detailsOf(run);
  return details.has_config ? { ...shared().config, ...details.config } : {};
}

function settingsThatDiffer(one, other) {
  const mine = configOf(one), theirs = configOf(other);
  if (!Object.keys(mine).length || !Object.keys(theirs).length) {
    // without a configuration: at least what the sweep set
    return SWEPT.map((axis, i) => [axis.key, axis.values[RUNS[one].at[i]], axis.values[RUNS[other].at[i]]]).filter(([, a, b]) => a !== b);
  }
  const keys = new Set([...Object.keys(mine), ...Object.keys(theirs)]);
  return [...keys].filter((key) => JSON.stringify(mine[key]) !== JSON.stringify(theirs[key])).map((key) => [key, mine[key], theirs[key]]);
}

const plain = (value) => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));

function tableOf(heads, rows, kind = "plain") {
  const head = make("tr", {}, heads.map((text) => make("th", { scope: "col", text, dir: "auto" })));
  const body = rows.map((cells) =>
    make("tr", {}, cells.map((cell, i) => {
      if (cell instanceof Node) return make("td", {}, [cell]);
      return make(i ? "td" : "th", { text: cell, dir: "auto", ...(i ? {} : { scope: "row" }) });
    })),
  );
  return make("table", { class: kind }, [make("thead", {}, [head]), make("tbody", {}, body)]);
}

// A change of a measure: which way it goes, and whether that is the better way, in words as well as in colour.
// Less than a hundredth of the measure's scale is nothing to colour.
function changeOf(mine, theirs, measure) {
  if (mine === null || theirs === null) return "–";
  const difference = mine - theirs;
  if (Math.abs(difference) < 5e-7) return "0";
  const text = `${difference > 0 ? "+" : "−"}${figure(Math.abs(difference))}`;
  if (measure.better === null || Math.abs(difference) < 0.01 * (measure.scale[1] - measure.scale[0])) return text;
  const good = quality(measure, mine) > quality(measure, theirs);
  return make("span", { class: good ? "good" : "bad", text: `${text} ${good ? "▲" : "▼"}`, title: good ? "better" : "worse" });
}

let lastOpen = null; // where the keyboard goes on after the large view

function showLarge() {
  if (!state.open) {
    stopPlaying();
    if (large.open) large.close();
    return;
  }
  const place = state.open, cell = cellAt(place);
  if (cell.run < 0) return set({ open: null });
  lastOpen = place;
  const run = RUNS[cell.run], facet = facetOf(cell), details = detailsOf(cell.run);
  const side = besideSide(place), other = side && neighbour(place, side), otherCell = other && cellAt(other);
  const doubt = facet?.marks ? ` · ${facet.marks}` : "";
  byId("large-title").textContent = describe(place, [...SWEPT.map((axis) => axis.key), "facet"]) + doubt;
  byId("large-status").textContent = run.status;
  byId("large-status").className = `status ${run.status.replaceAll(" ", "-")}`;
  byId("large-reason").textContent = run.reason;
  byId("large-reason").hidden = !run.reason;
  showNote(cell);
  showLargePicture(cell, place);
  showFacetChoice(place, run);
  for (const button of large.querySelectorAll("[data-move]")) button.disabled = !neighbour(place, button.dataset.move);
  showBeside(place, side);
  showDifferences(cell, other, otherCell);
  showMeasures(cell, facet, details, other, otherCell);
  showPhotographs(cell, facet, details);
  const step = /^step (\d+)$/.exec(PICTURES[place.picture]);
  const early = place.picture < 2 ? 0 : null;
  byId("large-curves-section").hidden = !showCurves(byId("large-curves"), cell, otherCell, step ? Number(step[1]) : early);
  byId("curves-about").textContent = other ? `Grey: ${nameApart(other, place)}.` : "";
  byId("same-scale").checked = state.sameScale;
  const config = configOf(cell.run), entries = Object.entries(config);
  byId("config-details").hidden = false;
  byId("large-config").replaceChildren(
    make("p", { class: "about", text: `Folder: ${run.path}`, dir: "auto" }),
    make("p", { class: "about", text: `Overrides: ${details.overrides.join(" ") || "none"}`, dir: "auto" }),
    entries.length ? tableOf(["key", "value"], entries.map(([key, value]) => [key, plain(value)]), "plain config") : make("p", { class: "about", text: "No configuration could be read." }),
  );
  if (!large.open) large.showModal();
}

function showLargePicture(cell, place) {
  const holder = byId("large-picture"), clear = state.clear && hasTransparency(cell);
  const content = `${cell.run} ${cell.facet} ${cell.picture} ${clear}`;
  if (holder.dataset.content !== content) {
    holder.dataset.content = content;
    holder.classList.toggle("clear", clear);
    const image = picture(cell, { eager: true, clear });
    if (image.tagName === "IMG") image.alt = `${PICTURES[cell.picture]} of facet ${cell.facet}${clear ? ", transparent where little was pulled at" : ""}`;
    holder.replaceChildren(image);
  }
  byId("large-caption").textContent = !sourceOf(cell) ? "" : clear ? `${PICTURES[place.picture]}, as opaque as the loss pulled at each pixel, Σ|∂L/∂x|` : PICTURES[place.picture];
  byId("clear-field").hidden = !hasTransparency(cell);
  byId("clear").checked = state.clear;
  const shown = picturesOf(cell);
  byId("large-iteration").hidden = shown.length < 2;
  const slider = byId("iteration");
  slider.max = shown.length - 1;
  slider.value = Math.max(0, shown.indexOf(place.picture));
  slider.setAttribute("aria-valuetext", PICTURES[place.picture]);
  byId("iteration-value").textContent = PICTURES[place.picture];
  // The three that a picture is judged by, always in sight.
  const strip = byId("large-strip");
  const kinds = [0, 1, PICTURES.length - 1].filter((index) => sourceOf({ ...cell, picture: index }));
  const stripContent = `${cell.run} ${cell.facet}`;
  if (strip.dataset.content !== stripContent) {
    strip.dataset.content = stripContent;
    strip.replaceChildren(...kinds.map((index) => {
      const button = make("button", { type: "button", "data-picture": index }, [picture({ ...cell, picture: index }), make("span", { text: PICTURES[index] })]);
      button.addEventListener("click", () => {
        stopPlaying(); // else it plays on from there
        set({ open: { ...state.open, picture: index } });
      });
      return button;
    }));
  }
  for (const button of strip.children) button.setAttribute("aria-pressed", String(Number(button.dataset.picture) === place.picture));
}

// Which of the pictures a run has of a facet, from the initial image on: what the iteration slider goes through.
function picturesOf(cell) {
  return PICTURES.map((_, index) => index).filter((index) => index > 0 && sourceOf({ ...cell, picture: index }));
}

function showFacetChoice(place, run) {
  const select = byId("large-facet");
  byId("large-facet-field").hidden = run.facets.length < 2;
  if (select.options.length !== run.facets.length)
    select.replaceChildren(...run.facets.map((_, c) => make("option", { value: c, text: String(c) })));
  select.value = String(place.facet);
}

function showBeside(place, side) {
  const select = byId("beside"), sides = Object.keys(SIDES).filter((one) => neighbour(place, one));
  select.replaceChildren(...sides.map((one) => make("option", { value: one, text: `${one}: ${nameApart(neighbour(place, one), place)}` })));
  if (side) select.value = side;
  select.closest(".against").hidden = sides.length === 0;
}

// What tells one place from another, in a few words.
function nameApart(place, from) {
  const keys = AXES.map((axis) => axis.key).filter((key) => place[key] !== from[key]);
  return keys.length ? describe(place, keys) : "the same";
}

function showDifferences(cell, other, otherCell) {
  const holder = byId("large-differences");
  if (!other) return holder.replaceChildren(make("p", { class: "about", text: "There is no neighbour to compare with." }));
  const rows = settingsThatDiffer(cell.run, otherCell.run).map(([key, mine, theirs]) => [key, plain(mine), plain(theirs)]);
  holder.replaceChildren(
    rows.length ? tableOf(["setting", "this", "beside"], rows) : make("p", { class: "about", text: "The settings are the same: only facet or picture differ." }),
  );
}

function showMeasures(cell, facet, details, other, otherCell) {
  byId("large-measures-section").hidden = !facet;
  if (!facet) return;
  const baselines = details.baselines[cell.facet] ?? {}, kinds = Object.keys(baselines);
  if (other && otherCell.run === cell.run && otherCell.facet === cell.facet) other = null; // another picture of the same facet
  const heads = ["measure", "this", ...(other ? ["change"] : []), ...kinds];
  const rows = MEASURES.map((measure, i) => {
    if (facet.measures[i] === null) return null;
    const change = other ? [changeOf(facet.measures[i], ownMeasure(otherCell, i), measure)] : [];
    return [spoken(measure.name), figure(facet.measures[i]), ...change, ...kinds.map((kind) => figure(baselines[kind][i]))];
  }).filter(Boolean);
  byId("large-measures").replaceChildren(
    tableOf(heads, rows, "plain figures"),
    make("p", { class: "about", text: `Of the visualisation. ${other ? "Change: from the cell beside to this one, ▲ better, ▼ worse. " : ""}${kinds.length ? "On the right the same figures for pictures nobody drew: the initial blend, the nearest photograph, noise." : ""}` }),
  );
}

function showPhotographs(cell, facet, details) {
  byId("large-photographs-section").hidden = !facet;
  if (!facet) return;
  const { photographs, names } = shared();
  const entries = (photographs[facet.photographs] ?? []).map(([number, weight]) => ({ number, name: names[number], weight }));
  const most = Math.max(1e-9, ...entries.map((entry) => entry.weight ?? 0));
  const where = details.where[cell.facet], shown = whereShown(where);
  showWhere(where, shown);
  const list = make("ol", { class: `photographs ${shown === "photographs" ? "" : "looked-into"}` });
  for (const [index, { number, name, weight }] of entries.entries()) {
    const item = make("li");
    const source = photographSource(cell, details, name, index);
    if (source) {
      const image = make("img", { alt: "", loading: "lazy", decoding: "async" });
      image.addEventListener("error", () => image.remove(), { once: true });
      image.src = source;
      item.append(shown === "photographs" || index >= where.windows.length ? image : placed(image, cell, where, shown, index));
    }
    const bar = make("span", { class: "bar", "aria-hidden": "true" }, [make("i")]);
    bar.firstChild.style.width = `${(100 * (weight ?? 0)) / most}%`;
    const find = make("button", { type: "button", class: "name", text: name, dir: "auto", title: `${name}\nFacets that hold it` });
    find.addEventListener("click", () => findHolders(number));
    item.append(find, make("span", { class: "weight", text: figure(weight) }), bar);
    list.append(item);
  }
  byId("large-photographs").replaceChildren(
    entries.length ? make("p", { class: "about", text: "The largest weight first." }) : make("p", { class: "about", text: "photographs.json could not be read." }),
    list,
  );
}

// What can be shown of each photograph, and what is: the heat map and crops where the run has them.
const WHERE = ["photographs", "heat", "crops"];
function whereThere(where) {
  return ["photographs", ...(where?.map ? ["heat"] : []), ...(where?.crops ? ["crops"] : [])];
}
const whereShown = (where) => (whereThere(where).includes(state.where) ? state.where : "photographs");

function showWhere(where, shown) {
  const there = whereThere(where);
  byId("where").hidden = there.length < 2;
  for (const one of WHERE) {
    byId(`where-${one}`).hidden = !there.includes(one);
    byId(`where-${one}`).setAttribute("aria-pressed", String(one === shown));
  }
  byId("where-about").textContent = !where ? "" : where.reason ? `No heat map: ${where.reason}.` : {
    photographs: "",
    heat: `Lit where the layer's top-k channels answer, weighted by the facet's target; unshaded is the strongest place of all these photographs. A map of ${where.map.join(" × ")}${where.crops ? "; the frame is what the unit at the peak sees" : ""}. ${noCrops(where)}`,
    crops: `What the unit at the peak of each heat map sees, ${where.field?.join(" × ")} of ${where.side} pixels; hatched is beyond the photograph's edge.`,
  }[shown];
}

function noCrops(where) {
  if (where.crops) return "";
  if (!where.field) return "What a unit sees cannot be told here (behind attention, say), so that there are no crops.";
  return Math.min(...where.field) >= where.side ? "A unit sees the whole photograph, so that there are no crops." : "";
}

// A photograph with its heat map laid over it, or the crop of it. All of a facet's lie in one file, one below the other.
function placed(image, cell, where, shown, index) {
  const sheet = make("img", { alt: "", loading: "lazy", decoding: "async", draggable: "false" });
  sheet.addEventListener("error", () => sheet.remove(), { once: true });
  sheet.src = `${folderOf(cell)}/${shown === "heat" ? "heat" : "crops"}.webp`;
  sheet.style.height = `${100 * where.windows.length}%`;
  sheet.style.top = `${-100 * index}%`;
  const cut = make("span", { class: "cut" }, [sheet]), window = where.windows[index];
  if (shown === "crops") {
    cut.style.aspectRatio = `${where.field[1]} / ${where.field[0]}`;
    return make("div", { class: "crop" }, [cut]);
  }
  const frame = where.crops && window ? [make("i", { class: "sees" })] : [];
  for (const one of frame) {
    const [left, top, right, bottom] = window;
    Object.assign(one.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
  }
  return make("div", { class: "lit" }, [image, cut, ...frame]);
}

function nextWhere() {
  const there = whereThere(detailsOf(cellAt(state.open).run).where[state.open.facet]);
  set({ where: there[(there.indexOf(state.where) + 1) % there.length] });
}
for (const one of WHERE) byId(`where-${one}`).addEventListener("click", () => set({ where: one }));
byId("clear").addEventListener("change", (event) => set({ clear: event.target.checked }));

// Only pictures below this page's folder: small copies, the demo's own, and the copy of the nearest one.
function photographSource(cell, details, name, index) {
  const folder = RUNS[cell.run].href;
  const parts = name.split("/");
  const clean = parts.every((part) => part !== "" && part !== "." && part !== "..") && !name.includes("\\") && name.isWellFormed();
  if (index < (details.thumbnails[cell.facet] ?? 0)) return `${folderOf(cell)}/photographs/${String(index).padStart(2, "0")}.webp`;
  if (details.photographs && clean) return `${folder}/${details.photographs}/${parts.map(encodeURIComponent).join("/")}`;
  return index === 0 ? sourceOf({ ...cell, picture: 0 }) : null;
}

function moveLarge(side) {
  const next = neighbour(state.open, side);
  if (!next) return;
  const found = table.find(next);
  if (found) (active = found), reveal(), drawCells();
  set({ open: next });
}

function stepLarge(by) {
  const shown = picturesOf(cellAt(state.open)), now = shown.indexOf(state.open.picture);
  const next = shown[Math.max(0, Math.min(shown.length - 1, now + by))];
  if (next !== undefined) set({ open: { ...state.open, picture: next } });
}

let playing = 0;
function stopPlaying() {
  clearInterval(playing);
  playing = 0;
  byId("play").textContent = "Play";
}
byId("play").addEventListener("click", () => {
  if (playing) return stopPlaying();
  const shown = picturesOf(cellAt(state.open));
  if (state.open.picture === shown.at(-1)) set({ open: { ...state.open, picture: shown[0] } });
  byId("play").textContent = "Stop";
  playing = setInterval(() => {
    if (!state.open || state.open.picture === shown.at(-1)) return stopPlaying();
    stepLarge(1);
  }, 350);
});
byId("iteration").addEventListener("input", (event) => {
  stopPlaying();
  const shown = picturesOf(cellAt(state.open));
  set({ open: { ...state.open, picture: shown[Number(event.target.value)] } });
});
byId("large-facet").addEventListener("change", (event) => set({ open: { ...state.open, facet: Number(event.target.value) } }));
byId("beside").addEventListener("change", (event) => set({ beside: event.target.value }));
byId("same-scale").addEventListener("change", (event) => set({ sameScale: event.target.checked }));
for (const button of large.querySelectorAll("[data-move]")) button.addEventListener("click", () => moveLarge(button.dataset.move));
byId("compare-button").addEventListener("click", () => compareOpen());
byId("difference-button").addEventListener("click", () => differenceOpen());
function compareOpen() {
  const side = besideSide(state.open);
  set({ compared: [neighbour(state.open, side ?? "left") ?? { ...state.open, picture: 1 }, { ...state.open }] }, { step: true });
}
// What has grown since the initial image is the whole of what was drawn: weak in the picture, plain in the difference.
function differenceOpen() {
  set({ compared: [{ ...state.open, picture: 1 }, { ...state.open, picture: PICTURES.indexOf(LAST) }], mode: "difference" }, { step: true });
}
