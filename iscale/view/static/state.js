// What is shown, as a plain object, and as the fragment of the address that brings it back.

const NUMBERS = ["x", "y", "s", "lo", "hi", "lo2", "hi2", "least", "o"];
const TEXTS = ["layer", "gene", "gene2", "key", "map"];

export function read(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const state = {};
  for (const name of NUMBERS) {
    const value = parseFloat(given.get(name));
    if (Number.isFinite(value)) state[name] = value;
  }
  for (const name of TEXTS) if (given.get(name)) state[name] = given.get(name);
  state.spots = (given.get("spots") ?? "").split(",").filter(Boolean).map(decodeURIComponent);
  const flat = (given.get("region") ?? "").split("_").map(Number);
  if (flat.length >= 6 && flat.length % 2 === 0 && flat.every(Number.isFinite))
    state.region = Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
  return state;
}

export function written(state) {
  const out = new URLSearchParams();
  for (const name of TEXTS) if (state[name]) out.set(name, state[name]);
  for (const name of NUMBERS) if (Number.isFinite(state[name])) out.set(name, +state[name].toPrecision(7));
  if (state.spots.length) out.set("spots", state.spots.map(encodeURIComponent).join(","));
  if (state.region) out.set("region", state.region.flat().map((v) => Math.round(v * 10) / 10).join("_"));
  return "#" + out;
}
