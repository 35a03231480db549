// ---- filter: words and comparisons, all of which must hold ---------------------------------------------------------

const COMPARE = {
  ">": (a, b) => a > b,
  "<": (a, b) => a < b,
  ">=": (a, b) => a >= b,
  "<=": (a, b) => a <= b,
  "=": (a, b) => a === b,
  "!=": (a, b) => a !== b,
};

const searched = new Map();
function searchText(run) {
  if (!searched.has(run)) {
    const { at, path, status, reason } = RUNS[run];
    const settings = SWEPT.map((axis, i) => `${axis.key}=${axis.values[at[i]]}`).join(" ");
    searched.set(run, `${settings} ${path} ${status} ${reason}`.toLowerCase());
  }
  return searched.get(run);
}

// What a name in a comparison means: a swept setting, the facet, the status, or a measure, by its name or its end.
function valueNamed(name) {
  const wanted = name.toLowerCase();
  const ends = (known) => known.toLowerCase() === wanted || known.toLowerCase().endsWith(`.${wanted}`);
  if (wanted === "facet") return (cell) => cell.facet;
  if (wanted === "status") return (cell) => RUNS[cell.run].status;
  const axis = SWEPT.findIndex((one) => ends(one.key));
  if (axis >= 0) return (cell) => SWEPT[axis].values[RUNS[cell.run].at[axis]];
  let measure = MEASURES.findIndex((one) => one.name.toLowerCase() === wanted);
  if (measure < 0) measure = MEASURES.findIndex((one) => ends(one.name));
  if (measure >= 0) return (cell) => measureOf(cell, measure);
  return null;
}

// Whether a facet has a photograph in whose name, folders and all, a text occurs: among its own or those it is blended of.
const heldBy = new Map();
function holders(text) {
  if (!heldBy.has(text)) {
    const { names, photographs } = shared();
    const wanted = new Set(names.flatMap((name, i) => (name.toLowerCase().includes(text) ? [i] : [])));
    const lists = photographs.map((list) => list.some(([name]) => wanted.has(name))), labels = new Map();
    const labelsOf = (run) => {
      const map = mapOf(run);
      if (!map) return new Set();
      if (!labels.has(map.number)) labels.set(map.number, new Set(map.labels.filter((_, i) => wanted.has(map.names[i]))));
      return labels.get(map.number);
    };
    heldBy.set(text, (cell) => Boolean(facetOf(cell)) && (lists[facetOf(cell).photographs] || labelsOf(cell.run).has(cell.facet)));
  }
  return heldBy.get(text);
}

// All facets that hold a photograph, the best first.
const findHolders = (name) => set({ view: "ranking", filter: `holds="${shared().names[name].replaceAll('"', "")}"`, bound: null, open: null }, { step: true });

// {matches(cell), error}: the error is for people, "" where there is none.
function parseFilter(text) {
  const tests = [];
  let error = "";
  const words = text.trim().replace(/\s*(>=|<=|!=|=|<|>)\s*/g, "$1").match(/(?:"[^"]*"?|[^\s"])+/g) ?? [];
  for (const word of words) {
    const found = /^([^<>=!"]+)(>=|<=|!=|=|<|>)(.*)$/.exec(word);
    if (!found) {
      const plain = word.replaceAll('"', "").toLowerCase();
      if (plain === "starred" || plain === "noted") {
        tests.push((cell) => Boolean(plain === "starred" ? noteOf(cell).star : noteOf(cell).note));
        continue;
      }
      tests.push((cell) => searchText(cell.run).includes(plain));
      continue;
    }
    const [, name, sign, quoted] = found, said = quoted.replaceAll('"', "");
    if (name.toLowerCase() === "holds" && said !== "") {
      const holding = holders(said.toLowerCase());
      tests.push((cell) => holding(cell) === (sign !== "!="));
      continue;
    }
    const value = valueNamed(name);
    if (said === "") continue; // still being typed
    if (!value) {
      error = `No measure or setting is called ${name}.`;
      continue;
    }
    tests.push((cell) => {
      const own = value(cell);
      if (own === null) return false;
      const numbers = isNumber(String(own)) && isNumber(said);
      if (!numbers && sign !== "=" && sign !== "!=") return false;
      return numbers ? COMPARE[sign](Number(own), Number(said)) : COMPARE[sign](String(own).toLowerCase(), said.toLowerCase());
    });
  }
  return { error, active: tests.length > 0, matches: (cell) => cell.run >= 0 && tests.every((test) => test(cell)) };
}
