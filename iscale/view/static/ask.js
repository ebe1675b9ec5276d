// Questions to the server.

export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined && value !== "") query.set(name, value);
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

export async function ask(path, parameters, options = {}) {
  let answer;
  try {
    answer = await fetch(address(path, parameters), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: is iscale view still running?");
  }
  if (!answer.ok) throw new Error((await answer.text()).trim() || `The server answered ${answer.status}.`);
  return answer.json();
}

// Calls an asynchronous function with the newest arguments only: one call at a time, and not sooner than `rest` ms after
// the last; older ones that wait are dropped.
export function newest(rest, call) {
  let waiting = null, busy = false;
  const next = async () => {
    if (busy || !waiting) return;
    const given = waiting;
    [busy, waiting] = [true, null];
    try { await call(...given); } finally {
      setTimeout(() => { busy = false; next(); }, rest);
    }
  };
  return (...given) => { waiting = given; next(); };
}

export function later(wait, call) {
  let timer;
  return (...given) => { clearTimeout(timer); timer = setTimeout(() => call(...given), wait); };
}
