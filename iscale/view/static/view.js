// The page: what is chosen becomes the state, the state becomes what is drawn and the address.

import { address, ask, later, newest } from "./ask.js";
import { SlideMap } from "./map.js";
import { Range, short } from "./range.js";
import { RegionPanel } from "./region.js";
import { Search } from "./search.js";
import { isRange, limited, read, written } from "./state.js";

const $ = (id) => document.getElementById(id);
const LAYERS = [
  ["gene", "Gene"], ["uncertainty", "Uncertainty"], ["refined", "Refined"], ["two", "Two genes"],
  ["clusters", "Clusters"], ["annotation", "Annotation"], ["none", "Nothing"],
];
const MAGENTA = (share) => `rgb(${255 * share} 0 ${255 * share})`, GREEN = (share) => `rgb(0 ${255 * share} 0)`;
const visible = (share) => 0.2 + 0.8 * share; // bars of nearly black are not seen on a dark page

let about, map, state, asked = 0;
const histograms = new Map(), spots = new Map();

const trouble = (error) => {
  $("trouble").textContent = error?.message ?? "";
  $("trouble").hidden = !error;
};
const say = (text) => { $("said").textContent = ""; setTimeout(() => { $("said").textContent = text; }, 30); };
const busy = (on) => { asked += on ? 1 : -1; $("busy").hidden = asked <= 0; };
const quantity = () => (["uncertainty", "refined"].includes(state.layer) ? state.layer : "gene");
const ofGenes = () => ["gene", "uncertainty", "refined", "two"].includes(state.layer);
const remember = later(250, () => history.replaceState(null, "", written({ ...state, ...map.place })));

async function histogramOf(kind, gene) {
  const key = `${kind} ${gene}`;
  if (!histograms.has(key)) {
    busy(true);
    const found = ask("api/histogram", { quantity: kind, gene, v: about.version }).finally(() => busy(false));
    histograms.set(key, found);
    found.catch(() => histograms.delete(key));
  }
  return histograms.get(key);
}

const share = (value, low, high) => Math.min(1, Math.max(0, (value - low) / (high - low)));
function colourer(low, high) {
  const colours = about.colour_maps[state.map || about.default_map[state.layer] || "viridis"];
  return (value) => colours[Math.round(share(value, low, high) * (colours.length - 1))];
}

// The range of colours: what was chosen, or by default that of the gene.
const rangeOf = (found, low, high) => (isRange(low, high) ? [low, high] : [found.from, found.to]);

// ---- what is drawn ------------------------------------------------------------------------------------------------

const ranges = {};
let drawing = 0;

async function draw() {
  const turn = ++drawing;
  trouble(null);
  try {
    if (ofGenes() && state.gene) await drawGenes(turn);
    else if (state.layer === "clusters" || state.layer === "annotation") drawClasses();
    else map.overlay.show(null, state.o);
    if (turn === drawing) await drawSpots(turn);
  } catch (error) {
    if (turn === drawing) {
      trouble(error);
      nothing();
    }
  }
  remember();
}

// What was shown before is of another gene.
function nothing() {
  if (ofGenes()) map.overlay.show(null, state.o);
  drawSpots.shown = null;
  map.showSpots([], [], [], [], "#111111");
  $("trust").textContent = $("spots-note").textContent = "";
}

async function drawGenes(turn) {
  const found = await histogramOf(quantity(), state.gene);
  const other = state.layer === "two" && state.gene2 ? await histogramOf("gene", state.gene2) : null;
  if (turn !== drawing) return;
  const [low, high] = rangeOf(found, state.lo, state.hi);
  const asking = { gene: state.gene, lo: low, hi: high, v: about.version };
  let layer = state.layer;
  if (state.layer === "two") {
    ranges.first.show(found, low, high, (value) => MAGENTA(visible(share(value, low, high))));
    if (other) {
      const [low2, high2] = rangeOf(other, state.lo2, state.hi2);
      Object.assign(asking, { gene2: state.gene2, lo2: low2, hi2: high2 });
      ranges.second.show(other, low2, high2, (value) => GREEN(visible(share(value, low2, high2))));
    } else [layer] = ["gene"];
  } else {
    if (state.least > 0) asking.least = state.least;
    asking.map = state.map || about.default_map[state.layer];
    ranges.first.show(found, low, high, colourer(low, high));
  }
  const both = other ? [found, other].map(({ gene, trust }) => `${gene} ${trust}`) : [found.trust];
  $("trust").textContent = `How far to believe ${other ? "them" : "it"}: ${both.join("; ")}.`;
  map.overlay.show((z, x, y) => address(`tile/${layer}/${z}/${x}/${y}`, asking), state.o);
}

function drawClasses() {
  const classes = about.classes.find(({ key }) => key === state.key);
  const items = classes ? classes.names.map((name, i) => {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = classes.colours[i];
    item.append(swatch, name);
    return item;
  }) : [];
  $("legend").replaceChildren(...items);
  map.overlay.show(classes ? (z, x, y) => address(`tile/classes/${z}/${x}/${y}`, { key: classes.key, v: about.version }) : null, state.o);
}

async function drawSpots(turn) {
  const chosen = state.spots.filter((name) => about.captures.includes(name));
  const all = { x: [], y: [], radius: [], fill: [], count: [], name: [] };
  const notes = [];
  if (chosen.length && state.gene) {
    const found = await histogramOf(quantity() === "uncertainty" ? "gene" : quantity(), state.gene);
    const own = state.layer !== "uncertainty";
    const [low, high] = own ? rangeOf(found, state.lo, state.hi) : [found.from, found.to];
    const colour = state.layer === "two" ? (v) => MAGENTA(share(v, low, high)) : colourer(low, high);
    for (const name of chosen) {
      const key = `${name} ${state.gene}`;
      try {
        if (!spots.has(key)) spots.set(key, await ask("api/spots", { capture: name, gene: state.gene, v: about.version }));
      } catch (error) { notes.push(error.message); continue; }
      const { x, y, radius_um, value, count, spots: total } = spots.get(key);
      x.forEach((_, i) => {
        all.x.push(x[i]); all.y.push(y[i]); all.radius.push(radius_um); all.fill.push(colour(value[i]));
        all.count.push(count[i]); all.name.push(name);
      });
      if (total > x.length) notes.push(`${name}: ${x.length.toLocaleString("en")} of ${total.toLocaleString("en")} spots are drawn.`);
    }
    if (all.x.length) notes.unshift(`${state.gene}, coloured as its map: counts over a spot's superpixels, evened between captures.`);
  } else if (chosen.length) notes.push("Choose a gene to see what was measured.");
  if (turn !== drawing) return;
  drawSpots.shown = all;
  map.showSpots(all.x, all.y, all.radius, all.fill, state.layer === "two" ? "#ffffff" : "#111111");
  $("spots-note").textContent = notes.join(" ");
}

// ---- what lies under the cursor -----------------------------------------------------------------------------------

const um = (value) => `${Math.round(value).toLocaleString("en")} µm`;

async function valueAt(x, y) {
  const { width, height } = map.size;
  if (x < 0 || y < 0 || x >= width || y >= height) return "off the slide";
  const found = await ask("api/value", { x, y, gene: ofGenes() ? state.gene : "", gene2: state.layer === "two" ? state.gene2 : "" });
  const parts = [`x ${um(x)}, y ${um(y)}`];
  for (const one of [found.gene, found.second].filter(Boolean)) {
    if (one.gene === null) continue;
    const refined = state.layer === "refined" && one.refined !== null ? `, refined ${short(one.refined)}` : "";
    parts.push(`${one.name} ${short(one.gene)} ± ${short(one.uncertainty)}${refined}`);
  }
  const classes = about.classes.find(({ key }) => key === state.key);
  if (["clusters", "annotation"].includes(state.layer) && classes && found.classes[classes.key])
    parts.push(`${state.layer === "clusters" ? "cluster " : ""}${found.classes[classes.key]}`);
  if (found.tissue === false) parts.push("off tissue");
  const all = drawSpots.shown;
  if (all) for (let i = all.x.length - 1; i >= 0; i--)
    if ((all.x[i] - x) ** 2 + (all.y[i] - y) ** 2 <= all.radius[i] ** 2) { parts.push(`spot of ${all.name[i]}: ${short(all.count[i])} counts`); break; }
  return parts.join(" · ");
}

const over = newest(90, async (x, y) => {
  if (x === null) { $("readout").textContent = ""; return; }
  try { $("readout").textContent = await valueAt(x, y); } catch (error) { $("readout").textContent = error.message; }
});

async function speak() {
  const { x, y } = map.place;
  try {
    const text = await valueAt(x, y);
    $("readout").textContent = text;
    say(text);
  } catch (error) { say(error.message); }
}

function scaleBar() {
  const { s } = map.place;
  const most = Math.min(160, map.element.clientWidth / 4) * s, power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((m) => m * power).find((l) => l <= most);
  $("scale-bar").style.width = `${length / s}px`;
  $("scale-text").textContent = length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
}

// ---- the controls -------------------------------------------------------------------------------------------------

function reflect() {
  document.querySelectorAll("#layers input").forEach((input) => { input.checked = input.value === state.layer; });
  const classing = ["clusters", "annotation"].includes(state.layer);
  $("genes").hidden = classing || state.layer === "none";
  $("classing").hidden = !classing;
  $("opaque").hidden = state.layer === "none";
  $("second").hidden = state.layer !== "two";
  $("colouring").hidden = state.layer === "two";
  $("search-label").textContent = state.layer === "two" ? "First gene, magenta" : "Gene";
  const own = about.classes.filter(({ key }) => key.startsWith(state.layer));
  if (classing && !own.some(({ key }) => key === state.key)) state.key = own[0]?.key;
  $("classes").replaceChildren(...own.map(({ key, title }) => new Option(title, key, false, key === state.key)));
  search.first.set(state.gene);
  search.second.set(state.gene2);
  $("colours").value = state.map || about.default_map[state.layer] || "viridis";
  if (document.activeElement !== $("least")) $("least").value = state.least > 0 ? state.least : "";
  $("opacity").value = state.o;
  $("opacity-text").textContent = `${Math.round(100 * state.o)} %`;
  document.querySelectorAll("#captures input").forEach((input) => { input.checked = state.spots.includes(input.value); });
  $("draw-clear").disabled = !state.region;
}

function change(given) {
  Object.assign(state, given);
  reflect();
  draw();
}

// A gene that the run has not got is told, and what is shown stays; its name is written as the run has it.
let choosing = 0;

async function chosen(typed, which = "gene") {
  const turn = ++choosing;
  let gene;
  try {
    ({ gene } = await histogramOf(which === "gene" ? quantity() : "gene", typed));
  } catch (error) {
    if (turn === choosing) {
      const { input } = which === "gene" ? search.first : search.second;
      reflect();
      if (document.activeElement === input) input.select();
      trouble(error);
    }
    return;
  }
  if (turn !== choosing) return;
  const cleared = which === "gene" ? { lo: undefined, hi: undefined, least: undefined } : { lo2: undefined, hi2: undefined };
  const layer = ofGenes() ? state.layer : "gene";
  change({ [which]: gene, ...cleared, layer });
  if (state.region && which === "gene") askRegion();
}

function drawn(corners) {
  map.draws();
  pressed(null);
  change({ region: corners });
  map.showRegion(corners);
  askRegion().then(() => $("regions").scrollIntoView({ block: "nearest" }));
}

const search = {};
let panel;

async function askRegion() {
  if (!state.region || !about.imputed) return;
  let colour = () => "currentColor", gene = "";
  if (state.gene) try {
    const found = await histogramOf(quantity(), state.gene);
    colour = colourer(...rangeOf(found, state.lo, state.hi));
    gene = state.gene;
  } catch { /* told where the gene is drawn; the others' means can be had */ }
  await panel.ask(state.region, gene, quantity(), colour);
}

function pressed(kind) {
  $("draw-box").setAttribute("aria-pressed", String(kind === "box"));
  $("draw-free").setAttribute("aria-pressed", String(kind === "free"));
}

function controls() {
  $("name").textContent = about.name;
  document.title = `${about.name} – iscale view`;
  const [height, width] = about.content_px.map((n) => (n * about.pixel_um) / 1000);
  $("about").textContent = `${+width.toPrecision(3)} × ${+height.toPrecision(3)} mm, ${about.genes.toLocaleString("en")} genes`
    + (about.genes > about.written ? `, ${about.written.toLocaleString("en")} of them written` : "");
  const notes = [...about.missing, ...about.outdated.map((part) => `${part} is of an earlier run`)];
  if (about.holder) notes.unshift("this run is being written: what is not there yet is transparent");
  $("notices").replaceChildren(...notes.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  $("notices").hidden = !notes.length;

  const there = LAYERS.filter(([key]) => key === "none" || (key === "refined" ? about.refined
    : ["clusters", "annotation"].includes(key) ? about.classes.some((c) => c.key.startsWith(key)) : about.genes));
  $("layers").replaceChildren(...there.map(([key, title]) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "layer", value: key });
    input.addEventListener("change", () => {
      change({ layer: key, lo: undefined, hi: undefined, least: undefined, map: undefined });
      if (state.region && ofGenes()) askRegion();
    });
    label.append(input, title);
    return label;
  }));
  $("colours").replaceChildren(...Object.keys(about.colour_maps).map((name) => new Option(name, name)));
  $("colours").addEventListener("change", () => change({ map: $("colours").value }));
  $("classes").addEventListener("change", () => change({ key: $("classes").value }));
  $("least").addEventListener("change", () => change({ least: parseFloat($("least").value) || undefined }));
  $("opacity").addEventListener("input", () => change({ o: parseFloat($("opacity").value) }));
  ranges.first = new Range($("range"), "Gene", (lo, hi) => change({ lo: lo ?? undefined, hi: hi ?? undefined }));
  ranges.second = new Range($("range2"), "Second gene", (lo2, hi2) => change({ lo2: lo2 ?? undefined, hi2: hi2 ?? undefined }));
  search.first = new Search($("search"), $("search-list"), (name) => chosen(name), trouble);
  search.second = new Search($("search2"), $("search2-list"), (name) => chosen(name, "gene2"), trouble);

  $("capturing").hidden = !about.captures.length || !about.genes;
  $("captures").replaceChildren(...about.captures.map((name) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "checkbox", value: name });
    input.addEventListener("change", () => change({
      spots: about.captures.filter((one) => (one === name ? input.checked : state.spots.includes(one))),
    }));
    label.append(input, name);
    return label;
  }));

  $("regions").hidden = !about.imputed;
  panel = new RegionPanel({
    note: $("region-note"), found: $("region-found"), histogram: $("region-histogram"), rows: $("region-rows"),
    sort: $("sort"), csv: $("csv"),
  }, { busy, chosen });
  for (const kind of ["box", "free"]) $(`draw-${kind}`).addEventListener("click", () => {
    const on = $(`draw-${kind}`).getAttribute("aria-pressed") !== "true";
    pressed(on ? kind : null);
    map.draws(on ? kind : undefined);
  });
  $("draw-view").addEventListener("click", () => drawn(map.corners()));
  $("draw-clear").addEventListener("click", () => {
    panel.clear();
    change({ region: undefined });
    map.showRegion(null);
  });
  $("zoom-in").addEventListener("click", () => map.zoom(0.5));
  $("zoom-out").addEventListener("click", () => map.zoom(2));
  $("zoom-all").addEventListener("click", () => map.whole());
  $("speak").addEventListener("click", speak);
  $("copy").addEventListener("click", async () => {
    history.replaceState(null, "", written({ ...state, ...map.place }));
    try { await navigator.clipboard.writeText(location.href); say("Copied."); $("copy").textContent = "Copied"; } catch { $("copy").textContent = "Copy the address above"; }
    setTimeout(() => { $("copy").textContent = "Copy link to this view"; }, 2000);
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", key);
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=radio]):not([type=checkbox]):not([type=range]), select, textarea");
  if (typing) return;
  if (event.key === "/" && about.genes) {
    event.preventDefault();
    if (!ofGenes()) change({ layer: "gene" });
    $("search").focus();
    return;
  }
  if (event.key === "Escape") { map.draws(); pressed(null); return; }
  const does = { "+": () => map.zoom(0.5), "=": () => map.zoom(0.5), "-": () => map.zoom(2), "0": () => map.whole(), v: speak, V: speak }[event.key];
  if (does) { event.preventDefault(); does(); return; }
  const arrows = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
  if (arrows && !event.target.matches("input, select, button, .scroll")) { event.preventDefault(); map.move(...arrows); }
}

// ---- from the address and back ------------------------------------------------------------------------------------

function started(given) {
  const layers = [...document.querySelectorAll("#layers input")].map(({ value }) => value);
  const { captures, colour_maps: maps } = about;
  const kept = limited(given, { layers, captures, maps: Object.keys(maps), ...map.size });
  return { layer: about.genes ? "gene" : "none", gene: about.first_gene || undefined, o: 0.75, ...kept };
}

async function restore() {
  state = started(read(location.hash));
  reflect();
  map.image.show((z, x, y) => address(`tile/image/${z}/${x}/${y}`, { v: about.version }), 1);
  if (state.s) map.go(state); else map.whole();
  map.showRegion(state.region ?? null);
  await draw();
  if (state.region) await askRegion(); else panel.clear();
}

// A run that is being written changes: what is drawn is fetched anew when it has.
async function watch() {
  try {
    const now = await ask("api/about");
    if (now.version !== about.version) {
      about = map.about = now;
      histograms.clear();
      spots.clear();
      map.image.show((z, x, y) => address(`tile/image/${z}/${x}/${y}`, { v: about.version }), 1);
      await draw();
    }
    if (!now.holder) return;
  } catch { /* it is asked again */ }
  setTimeout(watch, 15000);
}

async function start() {
  try {
    about = await ask("api/about");
    controls();
    map = new SlideMap($("map"), about, {
      over, left: () => over(null), moved: () => { scaleBar(); remember(); }, drawn,
    });
    await map.draw();
    window.viewer = { map, get state() { return state; }, get asked() { return asked; }, panel };
    window.addEventListener("hashchange", restore);
    await restore();
    document.body.dataset.ready = "yes";
    if (about.holder) setTimeout(watch, 15000);
  } catch (error) {
    trouble(error);
    document.body.dataset.ready = "failed";
  }
}

start();
