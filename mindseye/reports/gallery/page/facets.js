// ---- facets: their colours and shapes, the same in every view; which photographs and channels they have ------------

// Okabe & Ito's colours, which the colour-blind can tell apart, with a shape for each, as in the figures for print.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const SHAPES = ["M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z", "M-4.5-4.5h9v9h-9Z", "M0-5.5L5.5 4.5h-11Z", "M0-6L6 0L0 6L-6 0Z", "M0 5.5L-5.5-4.5h11Z", "M-1.8-5.5h3.6v3.7h3.7v3.6h-3.7v3.7h-3.6v-3.7h-3.7v-3.6h3.7Z"];

let mapsBlock = null;
const maps = () => (mapsBlock ??= readBlock("maps"));

// The number by which a facet is coloured: facets of two runs that share most of their photographs have the same.
const kindOf = (run, facet) => DATA.kinds[RUNS[run].map]?.[facet] ?? facet;
// Which photographs a run looks at: of two runs of one world those of the same name are the same. Null: not known.
function worldOf(run) {
  const { map } = RUNS[run];
  return map === null ? null : maps().sets[maps().maps[map].set].world;
}

// The facet of a run that is the same kind of photographs as one of another run; null where there is none.
function sameKind(cell, run) {
  if (run < 0 || cell.run < 0) return null;
  if (worldOf(run) !== worldOf(cell.run)) return null;
  if (RUNS[run].map === null) return cell.facet;
  const kind = kindOf(cell.run, cell.facet), facet = DATA.kinds[RUNS[run].map].indexOf(kind);
  return facet < 0 ? null : facet;
}
const colourOf = (kind) => COLOURS[kind % COLOURS.length];
const shapeOf = (kind) => SHAPES[(kind + Math.floor(kind / COLOURS.length)) % SHAPES.length];

function markOf(kind) {
  const shape = drawn("path", { d: shapeOf(kind), class: "mark" });
  shape.style.fill = colourOf(kind);
  return drawn("svg", { viewBox: "-7 -7 14 14", width: 14, height: 14, "aria-hidden": "true" }, [shape]);
}

// All that the map of a run is drawn from, read once; null where the run keeps none.
const readMaps = new Map();
function mapOf(run) {
  const number = run < 0 ? null : RUNS[run].map;
  if (number === null || number === undefined) return null;
  if (!readMaps.has(number)) {
    const map = maps().maps[number], { names } = maps().sets[map.set];
    const sizes = new Array(map.centres.length).fill(0);
    for (const label of map.labels) sizes[label]++;
    readMaps.set(number, { ...map, number, names, sizes, at: new Map(names.map((name, i) => [name, i])) });
  }
  return readMaps.get(number);
}

function noMapReason(run) {
  if (run < 0) return "This cell is not in this sweep.";
  return RUNS[run].status === "completed" ? `No map: ${RUNS[run].no_map}.` : `This cell is ${RUNS[run].status}.`;
}

// A facet's photographs as [number of the name, weight], the largest weight first.
const blendedOf = (run, facet) => shared().photographs[RUNS[run].facets[facet]?.photographs] ?? [];

// Where there is a small copy of a photograph, in one of the runs that look at the same ones: number of name -> URL.
const MOST_LOOKED_THROUGH = 30;
const copiesOfSet = new Map();
function copiesOf(run) {
  const set = mapOf(run)?.set;
  if (set === undefined) return new Map();
  if (!copiesOfSet.has(set)) {
    const copies = new Map(), seen = new Set();
    for (const [index, one] of RUNS.entries()) {
      if (one.map === null || seen.has(one.map) || maps().maps[one.map].set !== set) continue;
      if (seen.add(one.map).size > MOST_LOOKED_THROUGH) break;
      addCopies(copies, index);
    }
    copiesOfSet.set(set, copies);
  }
  return addCopies(copiesOfSet.get(set), run);
}

function addCopies(copies, run) {
  const details = detailsOf(run);
  RUNS[run].facets.forEach((facet, c) => {
    if (!facet) return;
    blendedOf(run, c).forEach(([name], place) => {
      const source = copies.has(name) ? null : photographSource({ run, facet: c }, details, shared().names[name], place);
      if (source) copies.set(name, source);
    });
  });
  return copies;
}
