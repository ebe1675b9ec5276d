// What is shown, as a plain object, and as the fragment of the address that brings it back.

const NUMBERS = ["x", "y", "s", "lo", "hi", "lo2", "hi2", "least", "o"];
const LARGEST = 1e30;
const TEXTS = ["layer", "gene", "gene2", "key", "map"];

export function read(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const state = {};
  for (const name of NUMBERS) {
    const value = parseFloat(given.get(name));
    if (Number.isFinite(value)) state[name] = value;
  }
  for (const name of TEXTS) if (given.get(name)) state[name] = given.get(name);
  state.spots = (given.get("spots") ?? "").split(",").filter(Boolean).map(decoded);
  const flat = (given.get("region") ?? "").split("_").map(Number);
  if (flat.length >= 6 && flat.length % 2 === 0 && flat.every(Number.isFinite))
    state.region = Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
  return state;
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

const cut = (value, least, most) => Math.min(Math.max(value, least), most);

// What was read, with all that cannot be shown left out or cut to its limits: an address may come from anywhere, also
// from another run. Names of genes stay as they are: the server tells which there are.
export function limited(state, { layers, maps, captures, width, height }) {
  const kept = { ...state };
  if (!layers.includes(kept.layer)) delete kept.layer;
  if (!maps.includes(kept.map)) delete kept.map;
  if (kept.o !== undefined) kept.o = cut(kept.o, 0, 1);
  if (!(kept.least > 0 && kept.least <= LARGEST)) delete kept.least;
  for (const [low, high] of [["lo", "hi"], ["lo2", "hi2"]])
    if (!isRange(kept[low], kept[high])) { delete kept[low]; delete kept[high]; }
  if ([kept.x, kept.y, kept.s].every(Number.isFinite) && kept.s > 0)
    Object.assign(kept, { x: cut(kept.x, 0, width), y: cut(kept.y, 0, height) });
  else for (const name of ["x", "y", "s"]) delete kept[name];
  kept.spots = kept.spots.filter((name) => captures.includes(name));
  return kept;
}

// Whether colours can run from one value to the other, as the server takes them.
export function isRange(low, high) {
  return Math.fround(high) - Math.fround(low) > 0 && Math.max(Math.abs(low), Math.abs(high)) <= LARGEST;
}

export function written(state) {
  const out = new URLSearchParams();
  for (const name of TEXTS) if (state[name]) out.set(name, state[name]);
  for (const name of NUMBERS) if (Number.isFinite(state[name])) out.set(name, +state[name].toPrecision(7));
  if (state.spots.length) out.set("spots", state.spots.map(encodeURIComponent).join(","));
  if (state.region) out.set("region", state.region.flat().map((v) => Math.round(v * 10) / 10).join("_"));
  return "#" + out;
}
