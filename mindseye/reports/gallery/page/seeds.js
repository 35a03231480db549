// ---- seeds: an axis that is folded away, so that a cell stands for all of its seeds, with the mean and its interval --

// Student's t at 97.5 % for 1 to 30 degrees of freedom, and an expansion beyond (Abramowitz & Stegun 26.7.5).
const STUDENT = [
  12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.306, 2.26216, 2.22814,
  2.20099, 2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596,
  2.07961, 2.07387, 2.06866, 2.0639, 2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227,
];
const student = (freedom) => STUDENT[freedom - 1] ?? 1.959964 + (1.959964 ** 3 + 1.959964) / (4 * freedom);

// As mindseye.settings.is_seed. Runs of equal settings, which `repeat` numbers, have the same seed: that is no chance.
const isSeed = (axis) => axis.values.length > 1 && /(^|\.)seed$/.test(axis.key);
const FOLDABLE = SWEPT.filter(isSeed);

// {mean, half}: the mean of some numbers and half of its 95 % interval, null for fewer than two.
function meanAndHalf(values) {
  const middle = values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  if (values.length < 2) return { mean: middle, half: null };
  const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
  return { mean: middle, half: (student(values.length - 1) * spread) / Math.sqrt(values.length) };
}

// The runs that differ from one in its seed alone, in the order of the seeds: [seed, run].
const seedRuns = new Map();
function runsOverSeeds(run) {
  const key = `${state.folded} ${run}`;
  if (!seedRuns.has(key)) {
    const axis = axisOf(state.folded), place = placeOf({ run, facet: 0, picture: 0 });
    seedRuns.set(key, axis.values.map((seed, i) => [seed, cellAt({ ...place, [axis.key]: i }).run]).filter(([, one]) => one >= 0));
  }
  return seedRuns.get(key);
}

// Of a facet: the facets of the same kind of photographs under every seed. Of a whole cell: the means of its runs.
const foldedCells = new Map();
// Where seeds look at different photographs their facets have nothing to do with each other, and it is the whole cell.
function foldedOf(cell, index, whole) {
  whole ||= worldOf(cell.run) === null; // no facet can be told to be one of another seed's
  whole ||= runsOverSeeds(cell.run).some(([, run]) => worldOf(run) !== worldOf(cell.run));
  const key = `${state.folded} ${cell.run} ${whole ? "all" : cell.facet} ${index}`;
  if (!foldedCells.has(key)) {
    const seeds = runsOverSeeds(cell.run).map(([seed, run]) => {
      const facet = whole ? null : sameKind(cell, run);
      const value = whole ? meanOfRun(run, index) : facet === null ? null : (RUNS[run].facets[facet]?.measures[index] ?? null);
      return { seed, run, facet: facet ?? 0, value };
    });
    const known = seeds.filter(({ value }) => value !== null);
    foldedCells.set(key, { seeds, whole, count: known.length, ...meanAndHalf(known.map(({ value }) => value)) });
  }
  return foldedCells.get(key);
}

// As in a run's own summary, facets that were stopped have no part in it, and shares of a way count by the way.
function meanOfRun(run, index) {
  return weighted(RUNS[run].facets.filter((facet) => facet && !facet.stopped).map(({ measures }) => (i) => measures[i]), index);
}

// Where a cell stands for its seeds it shows the first of them that was drawn.
function overSeeds(place) {
  if (!state.folded) return place;
  const axis = axisOf(state.folded);
  const drawn = axis.values.findIndex((_, i) => RUNS[cellAt({ ...place, [axis.key]: i }).run]?.facets.length);
  return drawn < 0 ? place : { ...place, [axis.key]: drawn };
}

function seedsInWords(folded) {
  const spread = folded.seeds.map(({ seed, value }) => `${seed}: ${figure(value)}`).join(", ");
  return `${state.folded} ${spread}`;
}

const withHalf = ({ mean: middle, half }) => (half === null ? figure(middle) : `${figure(middle)} ± ${figure(half)}`);
const foldAway = (key) => set({ folded: key, ...Object.fromEntries(LAYS_OUT.filter((name) => key && state[name] === key).map((name) => [name, ""])) });

// One at a time: over the combinations of two seeds the cells are no draws of their own.
function foldControl({ key }) {
  const box = make("input", { type: "checkbox", value: key });
  box.addEventListener("change", () => foldAway(box.checked ? key : ""));
  return make("label", { class: "check" }, [box, make("span", { text: `fold ${key} away: mean and 95 % interval` })]);
}
