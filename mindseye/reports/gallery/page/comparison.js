// ---- comparison: any two cells in one frame ------------------------------------------------------------------------

const comparison = byId("comparison");

function showComparison() {
  if (!state.a) {
    if (comparison.open) comparison.close();
    return;
  }
  showSides();
  for (const [name, place] of [["a", state.a], ["b", state.b]]) {
    const cell = cellAt(place), holder = byId(`picture-${name}`);
    const content = `${cell.run} ${cell.facet} ${cell.picture}`;
    if (holder.dataset.content === content) continue;
    holder.dataset.content = content;
    const image = picture(cell, { eager: true });
    if (image.tagName === "IMG") image.alt = `${name.toUpperCase()}: ${describe(place, AXES.map((axis) => axis.key))}`;
    holder.replaceChildren(image);
  }
  byId("picture-b").style.clipPath = `inset(0 0 0 ${state.split}%)`;
  byId("edge").style.left = `${state.split}%`;
  byId("split").value = state.split;
  byId("split-value").textContent = `${state.split} % A`;
  const a = cellAt(state.a), b = cellAt(state.b);
  const rows = MEASURES.map((measure, i) => {
    const one = measureOfPicture(a, i), two = measureOfPicture(b, i);
    return one === null && two === null ? null : [spoken(measure.name), figure(one), figure(two), changeOf(two, one, measure)];
  }).filter(Boolean);
  const unmeasured = [state.a, state.b].some((place) => PICTURES[place.picture].startsWith("step "));
  byId("comparison-measures").replaceChildren(
    rows.length ? tableOf(["measure", "A", "B", "change"], rows, "plain figures") : "",
    make("p", { class: "about", text: unmeasured ? "Pictures on the way, at a step, are not measured." : "" }),
  );
  const differing = a.run < 0 || b.run < 0 ? [] : settingsThatDiffer(a.run, b.run).map(([key, mine, theirs]) => [key, plain(mine), plain(theirs)]);
  byId("comparison-differences").replaceChildren(
    differing.length ? tableOf(["setting", "A", "B"], differing) : make("p", { class: "about", text: "None: they are of the same run, or one is not in this sweep." }),
  );
  if (!comparison.open) comparison.showModal();
}

// A menu for each axis and side: any cell can be chosen for either.
function showSides() {
  const holder = byId("sides"), axes = AXES.filter((axis) => axis.values.length > 1);
  const id = (name, axis) => `${name}-${AXES.indexOf(axis)}`;
  if (!holder.children.length) {
    holder.append(make("span"), make("b", { text: "A" }), make("b", { text: "B" }));
    for (const axis of axes) {
      holder.append(make("span", { text: axis.key, dir: "auto" }));
      for (const name of ["a", "b"]) {
        const select = make("select", { id: id(name, axis), "aria-label": `${name.toUpperCase()}: ${axis.key}` }, axis.values.map((value, i) => make("option", { value: i, text: value })));
        select.addEventListener("change", () => set({ [name]: { ...state[name], [axis.key]: Number(select.value) } }));
        holder.append(select);
      }
    }
  }
  for (const axis of axes) for (const name of ["a", "b"]) byId(id(name, axis)).value = String(state[name][axis.key]);
}

byId("split").addEventListener("input", (event) => set({ split: Number(event.target.value) }));
byId("exchange").addEventListener("click", () => set({ a: state.b, b: state.a }));

// The edge follows the pointer, too.
function follow(event) {
  const box = byId("over").getBoundingClientRect();
  set({ split: Math.round(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width))) });
}
byId("over").addEventListener("pointerdown", (event) => {
  byId("over").setPointerCapture(event.pointerId);
  follow(event);
});
byId("over").addEventListener("pointermove", (event) => {
  if (event.buttons & 1) follow(event);
});

// In the grid: the first cell is marked, the second is compared with it.
function markActive() {
  const place = table.placeAt(active.row, active.column);
  if (!place || cellAt(place).run < 0) return;
  if (!state.mark) set({ mark: place });
  else if (samePlace(state.mark, place)) set({ mark: null });
  else set({ a: state.mark, b: place, mark: null }, { step: true });
}
