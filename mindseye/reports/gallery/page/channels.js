// ---- channels: which facets share their top-k channels, and which of all cells use one of them ----------------------

const MOST_IN_MATRIX = 60, MOST_USERS = 200; // facets

// The channels of a facet, the strongest first; null where the run keeps none.
function topsOf(run, facet) {
  const list = maps().runs[RUNS[run].block]?.tops[facet];
  return list === undefined ? null : maps().channels[list];
}
const layerOf = (run) => maps().runs[RUNS[run].block]?.layer ?? null;

// |A ∩ B| / |A ∪ B| of two lists of channels, and what they share.
function jaccard(one, other) {
  const mine = new Set(one), both = other.filter((channel) => mine.has(channel));
  return { shared: both, value: both.length / (one.length + other.length - both.length) };
}

// Two draws of k and l of D channels share kl/D of them on average.
const byChance = (k, l, D) => (k * l) / D / (k + l - (k * l) / D);

function channelRuns() {
  const axis = axisOf(state.channelsAlong), here = cellAt(overSeeds(state.held)).run;
  if (!axis || !SWEPT.includes(axis)) return here < 0 ? [] : [here];
  return axis.values.map((_, i) => cellAt({ ...state.held, [axis.key]: i }).run).filter((run) => run >= 0);
}

function showChannels() {
  const select = byId("channels-along"), axes = SWEPT.filter((axis) => axis.values.length > 1);
  if (!select.options.length) select.replaceChildren(make("option", { value: "", text: "this cell alone" }), ...axes.map((axis) => make("option", { value: axis.key, text: axis.key })));
  select.value = state.channelsAlong;
  select.closest("label").hidden = axes.length === 0;
  const all = channelRuns().flatMap((run) => RUNS[run].facets.map((facet, c) => ({ run, facet: c, tops: facet && topsOf(run, c) }))).filter(({ tops }) => tops);
  const facets = all.slice(0, MOST_IN_MATRIX), first = channelRuns()[0] ?? -1;
  const notes = [];
  if (!facets.length) notes.push(first < 0 ? "This cell is not in this sweep." : `No channels: ${RUNS[first].no_map || `the cell is ${RUNS[first].status}`}.`);
  if (all.length > facets.length) notes.push(`The first ${MOST_IN_MATRIX} of ${all.length} facets.`);
  if (facets.length) {
    const [, layer, D] = maps().layers[layerOf(facets[0].run)], k = facets[0].tops.length;
    notes.push(`${layer} has ${D} channels, of which each facet's top-k are compared: two facets of k = ${k} that have nothing to do with each other share about ${byChance(k, k, D).toFixed(2)} by chance.`);
  }
  byId("channels-notes").textContent = notes.join(" ");
  showMatrix(facets);
  showUsers(facets);
}

const facetKey = ({ run, facet }) => `${run}.${facet}`;
function facetWords({ run, facet }, long) {
  const axis = axisOf(state.channelsAlong), place = placeOf({ run, facet, picture: 0 });
  const where = long ? describe(place, SWEPT.map((one) => one.key)) : axis ? valueLabel(axis, place[axis.key]) : "";
  return [where, `${long || !axis ? "facet " : ""}${facet}`].filter(Boolean).join(" · ");
}

function showMatrix(facets) {
  const holder = byId("channels-matrix");
  holder.hidden = facets.length === 0;
  const head = make("tr", {}, [make("td"), ...facets.map((one) => make("th", { scope: "col", title: facetWords(one, true) }, [markOf(kindOf(one.run, one.facet)), make("span", { text: facetWords(one) })]))]);
  const rows = facets.map((one, i) => make("tr", {}, [
    make("th", { scope: "row", title: facetWords(one, true) }, [markOf(kindOf(one.run, one.facet)), make("span", { text: facetWords(one) })]),
    ...facets.map((other, j) => matrixCell(one, other, i, j)),
  ]));
  holder.replaceChildren(make("table", { class: `matrix${facets.length > 24 ? " many" : ""}` }, [make("thead", {}, [head]), make("tbody", {}, rows)]));
  const chosen = (state.pair ?? "").split(" "), pair = chosen.map((key) => facets.find((one) => facetKey(one) === key));
  byId("channels-shared").replaceChildren(...(pair.length === 2 && pair.every(Boolean) ? sharedAbout(...pair) : []));
}

function matrixCell(one, other, i, j) {
  if (layerOf(one.run) !== layerOf(other.run)) return make("td", { class: "elsewhere", title: "Another layer or network: its channels are others." });
  const { value, shared: both } = jaccard(one.tops, other.tops);
  const cell = make("td", { class: value > DARK ? "dark" : "" });
  cell.style.backgroundColor = heatOf(value);
  if (i === j) return cell;
  const words = `${facetWords(one, true)} and ${facetWords(other, true)}: ${both.length} channels shared, ${value.toFixed(2)}`;
  const button = make("button", { type: "button", title: words, "aria-label": words, text: value.toFixed(2).replace(/^0/, "") });
  button.addEventListener("click", () => set({ pair: `${facetKey(one)} ${facetKey(other)}` }));
  cell.append(button);
  return cell;
}

function sharedAbout(one, other) {
  const { shared: both, value } = jaccard(one.tops, other.tops);
  return [make("p", { text: `${facetWords(one, true)} and ${facetWords(other, true)} share ${both.length} channels (${value.toFixed(2)}):` }), channelChips(both.map((channel) => [channel, ""]))];
}

function channelChips(channels) {
  return make("div", { class: "kinds" }, channels.map(([channel, words]) => {
    const chip = make("button", { type: "button", class: "small kind", "aria-pressed": String(state.channel === channel) }, [make("span", { text: String(channel) }), ...(words ? [make("small", { text: words })] : [])]);
    chip.addEventListener("click", () => set({ channel }));
    return chip;
  }));
}

// All facets of all cells of this layer that have a channel among their top-k.
function usersOf(channel, layer) {
  const users = [];
  RUNS.forEach((run, index) => {
    if (layerOf(index) !== layer) return;
    run.facets.forEach((facet, c) => {
      const rank = facet ? topsOf(index, c).indexOf(channel) : -1;
      if (rank >= 0) users.push({ run: index, facet: c, rank });
    });
  });
  return users.toSorted((a, b) => a.rank - b.rank);
}

function showUsers(facets) {
  const input = byId("channel"), field = input.closest("section");
  field.hidden = facets.length === 0;
  if (!facets.length) return;
  const layer = layerOf(facets[0].run), [, , D] = maps().layers[layer];
  input.max = D - 1;
  if (document.activeElement !== input) input.value = state.channel ?? "";
  const counts = new Map();
  for (const { run, tops } of facets) if (layerOf(run) === layer) for (const channel of tops) counts.set(channel, (counts.get(channel) ?? 0) + 1);
  const common = [...counts].toSorted((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 12);
  byId("channels-common").replaceChildren(channelChips(common.map(([channel, count]) => [channel, `in ${count}`])));
  const holder = byId("channel-users"), users = state.channel === null ? [] : usersOf(state.channel, layer);
  byId("channel-about").textContent = state.channel === null
    ? "Choose a channel: above are those that most of these facets have."
    : `Channel ${state.channel} is among the top k of ${users.length} ${users.length === 1 ? "facet" : "facets"} of all cells at this layer${users.length > MOST_USERS ? `; the first ${MOST_USERS}` : ""}.`;
  holder.replaceChildren(...users.slice(0, MOST_USERS).map((user) => {
    const cell = { run: user.run, facet: user.facet, picture: PICTURES.indexOf(LAST) };
    const button = make("button", { type: "button" }, [picture(cell), make("span", { dir: "auto" }, [markOf(kindOf(user.run, user.facet)), ` ${facetWords(user, true)}, ${ordinal(user.rank + 1)}`])]);
    button.addEventListener("click", () => set({ open: placeOf(cell) }, { step: true }));
    return button;
  }));
}

const ordinal = (n) => `${n}${n % 100 > 10 && n % 100 < 14 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th")}`;

byId("channels-along").addEventListener("change", (event) => set({ channelsAlong: event.target.value, pair: null }));
byId("channel").addEventListener("input", (event) => set({ channel: /^\d+$/.test(event.target.value) ? Number(event.target.value) : null }));
