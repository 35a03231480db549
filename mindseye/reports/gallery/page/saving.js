// ---- saving: what is shown as a picture, as the command that draws it for print, and as a table ---------------------

const saving = byId("saving");
const MOST_SIDE = 8192; // pixels of a picture that every browser draws
const AMPLIFIED = 4; // what the grid's style makes of a difference
const PNG_HEAD = 33; // bytes of a PNG's signature and of the header after it, behind which a text may stand
// That text: who has made the picture, so that it is taken for no photograph wherever it is put; its length comes first, its CRC last.
const MADE_HERE = new Uint8Array([0, 0, 0, 17, 116, 69, 88, 116, 83, 111, 102, 116, 119, 97, 114, 101, 0, 109, 105, 110, 100, 115, 101, 121, 101, 215, 135, 142, 125]);

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
  const left = isGrid ? pngLayout().words : "";
  byId("save-png-note").textContent = location.protocol === "file:"
    ? "A browser does not let a page from disk read its pictures: on a web server this button works, and the command does anywhere."
    : left && `It has ${left}: a picture is at most ${MOST_SIDE} pixels a side. Smaller cells or a filter let more in; the table has all.`;
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

// Of a cell that stands for its seeds: what it is the mean over, and the half of each interval; of others one run's.
function tableAsCsv() {
  const half = state.folded ? MEASURES.map((measure) => `${measure.name} half of the 95 % interval`) : [];
  const heads = [...SWEPT.map((axis) => axis.key), "facet", "picture", "status", "folder", ...MEASURES.map((measure) => measure.name), ...half];
  const lines = [heads.map(csvText).join()];
  for (const { place, cell } of cellsShown()) {
    if (cell.run < 0) continue;
    const folded = state.folded && PICTURES[cell.picture] === LAST ? MEASURES.map((_, i) => foldedOf(cell, i, table.kind === "ranking")) : null;
    const runs = folded ? runsOverSeeds(cell.run) : [["", cell.run]], each = (of) => [...new Set(runs.map(([, run]) => of(RUNS[run])))].join("; ");
    const settings = SWEPT.map((axis) => (folded && axis.key === state.folded ? `mean over ${runs.map(([seed]) => seed).join(", ")}` : valueLabel(axis, place[axis.key])));
    const facet = folded?.[0]?.whole ? "all" : String(cell.facet);
    const values = MEASURES.map((_, i) => measureOfPicture(cell, i)), halves = half.map((_, i) => folded?.[i].half ?? null);
    const own = [...settings, facet, PICTURES[cell.picture], each((run) => run.status), each((run) => run.path)];
    lines.push([...own.map(csvText), ...[...values, ...halves].map((value) => (value === null ? "" : String(value)))].join());
  }
  return `${lines.join("\r\n")}\r\n`;
}

// Where the parts of the PNG are, and how many of the rows and columns it has: browsers draw no picture of any size.
function pngLayout() {
  const step = { x: state.size + 12, y: state.size + 34 }, left = table.rowAxis ? 150 : 8, top = 56, foot = 24;
  const rows = Math.min(table.rows, Math.floor((MOST_SIDE - top - foot) / step.y)), columns = Math.min(table.columns, Math.floor((MOST_SIDE - left) / step.x));
  const missing = [[rows, table.rows, "rows"], [columns, table.columns, "columns"]].filter(([drawn, all]) => drawn < all);
  const words = missing.map(([drawn, all, what]) => `the first ${drawn} of ${all} ${what}`).join(", ");
  return { step, left, top, foot, rows, columns, words };
}

async function tableAsPng() {
  const side = state.size, { step, left, top, foot, rows, columns, words } = pngLayout();
  const canvas = make("canvas"), pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  canvas.width = Math.max(left + step.x * columns, words ? 360 : 0);
  canvas.height = top + step.y * rows + (words ? foot : 0);
  const ink = style.getPropertyValue("--ink");
  pen.fillStyle = style.getPropertyValue("--ground");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = ink;
  pen.font = "600 13px sans-serif";
  for (let j = 0; j < columns && table.columnAxis; j++) pen.fillText(`${table.columnGroup(j)} ${table.columnLabel(j)}`.trim(), left + j * step.x, top - 12, side);
  for (let i = 0; i < rows && table.rowAxis; i++) pen.fillText(`${table.rowGroup(i)} ${table.rowLabel(i)}`.trim(), 8, top + i * step.y + 14, left - 16);
  pen.font = "13px sans-serif";
  if (words) pen.fillText(`Of this table ${words}.`, 8, canvas.height - 8, canvas.width - 16);
  for (const { cell, row, column } of cellsShown()) {
    if (row >= rows || column >= columns) continue;
    const x = left + column * step.x, y = top + row * step.y, value = measureOfPicture(cell, measureIndex(state.measure));
    pen.fillStyle = ink;
    if (value !== null) pen.fillText(state.folded && PICTURES[cell.picture] === LAST ? withHalf(foldedOf(cell, measureIndex(state.measure), table.kind === "ranking")) : figure(value), x, y + side + 16, side);
    try {
      await drawCell(pen, cell, value, x, y, side);
    } catch {
      pen.strokeStyle = ink;
      pen.strokeRect(x, y, side, side);
    }
  }
  return new Promise((done) => canvas.toBlob((png) => done(new Blob([png.slice(0, PNG_HEAD), MADE_HERE, png.slice(PNG_HEAD)], { type: "image/png" })), "image/png"));
}

// As the grid shows it, see `shownOf`.
async function drawCell(pen, cell, value, x, y, side) {
  const shown = shownOf(cell, value), images = shown.tagName === "IMG" ? [shown] : [...shown.querySelectorAll("img")];
  if (shown.classList.contains("heat")) {
    pen.fillStyle = shown.style.backgroundColor;
    pen.fillRect(x, y, side, side);
    pen.fillStyle = shown.classList.contains("dark") ? "#fff" : "#000";
    return pen.fillText(shown.textContent, x + side / 2 - pen.measureText(shown.textContent).width / 2, y + side / 2 + 5);
  }
  const drawn = images.map((image) => Object.assign(new Image(), { src: image.getAttribute("src") }));
  await Promise.all(drawn.map((image) => image.decode()));
  if (drawn.length === 1) drawSquare(pen, drawn[0], x, y, side);
  if (drawn.length < 2) return;
  const canvas = make("canvas", { width: side, height: side }), own = canvas.getContext("2d");
  drawSquare(own, drawn[0], 0, 0, side);
  own.globalCompositeOperation = "difference";
  drawSquare(own, drawn[1], 0, 0, side);
  pen.fillStyle = "#000";
  pen.fillRect(x, y, side, side);
  pen.globalCompositeOperation = "lighter"; // added up so often as the difference is amplified
  for (let times = 0; times < AMPLIFIED; times++) pen.drawImage(canvas, x, y);
  pen.globalCompositeOperation = "source-over";
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
