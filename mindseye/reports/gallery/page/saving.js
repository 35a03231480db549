// ---- saving: what is shown as a picture, as the command that draws it for print, and as a table ---------------------

const saving = byId("saving");
const MOST_DRAWN = 400; // cells of a picture

// All that the view depends on, in full: what is drawn does not hang on what a page shows at first.
function viewWords() {
  const words = new URLSearchParams();
  for (const name of LAYS_OUT) words.set(name, state[name]);
  for (const axis of AXES) if (axis.values.length > 1 && !LAYS_OUT.some((name) => state[name] === axis.key)) words.set(`at.${axis.key}`, valueLabel(axis, state.held[axis.key]));
  words.set("measure", state.measure);
  if (SWEEP) words.set("sweep", SWEEP.name);
  if (state.folded) words.set("folded", state.folded);
  if (state.as !== "picture") words.set("as", state.as);
  if (state.filter) words.set("filter", state.filter);
  if (state.bound !== null) words.set("bound", String(state.bound));
  if (state.sort === "best") words.set("sort", "best");
  return String(words).replaceAll("'", "%27");
}

function openSaving() {
  const isGrid = state.view === "grid", narrowed = state.filter || state.bound !== null || state.sort === "best" || state.folded || state.as !== "picture";
  byId("save-print").hidden = !isGrid;
  byId("save-command").textContent = `mindseye figures FOLDER --view '${viewWords()}'`;
  byId("save-note").textContent = narrowed ? "Clear the filter and the order, show pictures, and fold nothing away: the command draws whole grids as swept." : `FOLDER is ${SWEEP ? "the folder of this sweep" : "where this page lies"}. PDF and PNG for print; with --video webp --along KEY, a film along a setting (or mp4).`;
  byId("save-png").disabled = !isGrid || location.protocol === "file:";
  byId("save-png-note").textContent = location.protocol === "file:" ? "A browser does not let a page from disk read its pictures: on a web server this button works, and the command does anywhere." : "";
  byId("save-csv").disabled = !TABLES.includes(state.view);
  saving.showModal();
}

function download(name, content) {
  const link = make("a", { download: name, href: URL.createObjectURL(content) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Every cell of the table, those that pass the filter, from the first row to the last.
function* cellsShown() {
  for (let i = 0; i < table.rows; i++)
    for (let j = 0; j < table.columns; j++) {
      const place = table.placeAt(i, j);
      if (place && table.passing(i, j)) yield { place, cell: cellAt(place), row: i, column: j };
    }
}

const csvField = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
// Text that a spreadsheet would take for a formula is given to it as text.
const csvText = (value) => csvField(/^[=+\-@\t\r]/.test(value) && !isNumber(value) ? `'${value}` : value);

function tableAsCsv() {
  const heads = [...SWEPT.map((axis) => axis.key), "facet", "picture", "status", "folder", ...MEASURES.map((measure) => measure.name)];
  const lines = [heads.map(csvText).join()];
  for (const { place, cell } of cellsShown()) {
    if (cell.run < 0) continue;
    const run = RUNS[cell.run], values = MEASURES.map((_, i) => measureOfPicture(cell, i));
    const own = [...SWEPT.map((axis) => valueLabel(axis, place[axis.key])), String(cell.facet), PICTURES[cell.picture], run.status, run.path];
    lines.push([...own.map(csvText), ...values.map((value) => (value === null ? "" : String(value)))].join());
  }
  return `${lines.join("\r\n")}\r\n`;
}

async function tableAsPng() {
  const cells = [...cellsShown()].slice(0, MOST_DRAWN), side = state.size, step = { x: side + 12, y: side + 34 };
  const left = table.rowAxis ? 150 : 8, top = 56;
  const canvas = make("canvas"), pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  canvas.width = left + step.x * table.columns;
  canvas.height = top + step.y * table.rows;
  const ink = style.getPropertyValue("--ink");
  pen.fillStyle = style.getPropertyValue("--ground");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = ink;
  pen.font = "600 13px sans-serif";
  for (let j = 0; j < table.columns && table.columnAxis; j++) pen.fillText(`${table.columnGroup(j)} ${table.columnLabel(j)}`.trim(), left + j * step.x, top - 12, side);
  for (let i = 0; i < table.rows && table.rowAxis; i++) pen.fillText(`${table.rowGroup(i)} ${table.rowLabel(i)}`.trim(), 8, top + i * step.y + 14, left - 16);
  pen.font = "13px sans-serif";
  for (const { cell, row, column } of cells) {
    const x = left + column * step.x, y = top + row * step.y, source = sourceOf(cell);
    const value = measureOfPicture(cell, measureIndex(state.measure));
    if (value !== null) pen.fillText(figure(value), x, y + side + 16);
    if (!source) continue;
    const image = new Image();
    image.src = source;
    try {
      await image.decode();
      drawSquare(pen, image, x, y, side);
    } catch {
      pen.strokeStyle = ink;
      pen.strokeRect(x, y, side, side);
    }
  }
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

byId("save-button").addEventListener("click", openSaving);
byId("save-copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(byId("save-command").textContent);
    byId("save-copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(byId("save-command")); // no clipboard from disk: selected, to be copied by hand
  }
});
byId("save-csv").addEventListener("click", () => download(`${DATA.title}.csv`, new Blob([tableAsCsv()], { type: "text/csv" })));
byId("save-png").addEventListener("click", async () => download(`${DATA.title}.png`, await tableAsPng()));
