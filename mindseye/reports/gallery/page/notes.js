// ---- notes: stars and notes of facets, kept in the browser, and exported as JSON -----------------------------------

const NOTES_KEY = `mindseye-notes ${location.pathname}`;
const MOST_NOTE = 4000; // letters
let noted = new Map(); // facetId -> {star, note}

const facetId = ({ run, facet }) => `${RUNS[run].path}#${facet}`;
const noteOf = (cell) => noted.get(facetId(cell)) ?? { star: false, note: "" };

// Whatever stands in the store, or in a file that somebody gives: only what is a star or a text is taken.
function takeNotes(entries) {
  for (const entry of Array.isArray(entries) ? entries : []) {
    if (typeof entry?.folder !== "string" || !Number.isInteger(entry.facet)) continue;
    const note = typeof entry.note === "string" ? entry.note.slice(0, MOST_NOTE) : "";
    if (entry.star === true || note) noted.set(`${entry.folder}#${entry.facet}`, { star: entry.star === true, note });
  }
}

function notesAsJson() {
  const facets = [...noted].map(([id, { star, note }]) => {
    const at = id.lastIndexOf("#"), folder = id.slice(0, at), run = RUNS.findIndex((one) => one.path === folder);
    const settings = run < 0 ? {} : Object.fromEntries(SWEPT.map((axis, i) => [axis.key, axis.values[RUNS[run].at[i]]]));
    return { folder, facet: Number(id.slice(at + 1)), settings, star, note };
  });
  return JSON.stringify({ format: 1, title: DATA.title, facets }, null, 1);
}

// Several tabs may show this page: the store is what they share, and each writes into it what it has changed alone.
let unkept = false; // whether something is noted that the store did not take
function stored() {
  try {
    return JSON.parse(localStorage.getItem(NOTES_KEY) ?? "{}").facets ?? [];
  } catch {
    return null; // a page from disk may have no storage, and what is there may be anything
  }
}

function readStored() {
  const entries = stored(), own = unkept || entries === null ? [...noted] : [];
  noted = new Map();
  takeNotes(entries);
  for (const [id, note] of own) noted.set(id, note);
}

function keepNotes() {
  try {
    localStorage.setItem(NOTES_KEY, notesAsJson());
    unkept = false;
    byId("note-about").textContent = "";
  } catch {
    unkept = true;
    byId("note-about").textContent = "This browser does not keep it: export it before the page is closed.";
  }
}

function setNote(cell, change) {
  readStored();
  const next = { ...noteOf(cell), ...change };
  if (next.star || next.note) noted.set(facetId(cell), next);
  else noted.delete(facetId(cell));
  keepNotes();
  show();
}

function toggleStar(place) {
  const cell = cellAt(place);
  if (facetOf(cell)) setNote(cell, { star: !noteOf(cell).star });
}

function showNote(cell) {
  const { star, note } = noteOf(cell), there = facetOf(cell) !== null;
  byId("star").hidden = byId("note-section").hidden = !there;
  byId("star").textContent = star ? "★" : "☆";
  byId("star").setAttribute("aria-pressed", String(star));
  if (document.activeElement !== byId("note")) byId("note").value = note;
}

byId("star").addEventListener("click", () => toggleStar(state.open));
byId("note").addEventListener("input", (event) => setNote(cellAt(state.open), { note: event.target.value }));
byId("save-notes").addEventListener("click", () => download(`${DATA.title} notes.json`, new Blob([notesAsJson()], { type: "application/json" })));
byId("read-notes").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  try {
    const { facets } = JSON.parse(await file.text());
    readStored();
    takeNotes(facets);
    byId("notes-error").textContent = "";
    keepNotes();
    show();
  } catch {
    byId("notes-error").textContent = "This is no file of stars and notes.";
  }
  event.target.value = "";
});
// Another tab has noted something, or emptied the store (then the key is null).
addEventListener("storage", (event) => {
  if (event.key !== NOTES_KEY && event.key !== null) return;
  readStored();
  show();
});
readStored();
