// Keeps what carries data-live up to date, without a reload: <section id="job" data-live="/jobs/4b1d/live?seen=...">.
//
// The address is asked again and again, and answers when there is news (or after a while):
//   200  the element anew; if it has no data-live any more, that was the last news
//   204  no news: ask again
//   404  it is gone, so that was all
// Retry-After says how many seconds to wait before asking again. A hidden tab asks nothing.

import { become } from "./become.js";

const SHORTEST_PAUSE_S = 0.3;
const LONGEST_PAUSE_S = 30;
const ANSWER_TAKES_AT_MOST_S = 40;

const pause = (seconds) => new Promise((go) => setTimeout(go, 1000 * seconds));

// Up to half as long again, so that pages that were turned away together do not come back together.
const spread = (seconds) => seconds * (1 + Math.random() / 2);

function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((go) => document.addEventListener("visibilitychange", go, { once: true })).then(visible);
}

async function ask(address) {
  const asking = new AbortController();
  const hangUp = () => document.hidden && asking.abort();
  const patience = setTimeout(() => asking.abort(), 1000 * ANSWER_TAKES_AT_MOST_S);
  document.addEventListener("visibilitychange", hangUp);
  try {
    const answer = await fetch(address, { signal: asking.signal });
    return { status: answer.status, retryAfter: Number(answer.headers.get("Retry-After")), html: await answer.text() };
  } finally {
    clearTimeout(patience);
    document.removeEventListener("visibilitychange", hangUp);
  }
}

function show(element, html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").getElementById(element.id);
  if (!fresh) throw new Error(`the answer has no #${element.id}`);
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  become(element, fresh);
  // The button that had the focus is gone: the reader goes on from here, not from the top of the page.
  if (focused && !focused.isConnected) element.focus({ preventScroll: true });
}

function tell(text) {
  const line = document.getElementById("connection");
  if (line && line.textContent !== text) line.textContent = text;
}

async function keepUpToDate(element) {
  let failures = 0;
  while (element.isConnected && element.dataset.live) {
    await visible();
    let pauseS = SHORTEST_PAUSE_S;
    try {
      const answer = await ask(element.dataset.live);
      if (answer.status === 404) return;
      if (answer.status === 200) show(element, answer.html);
      if (answer.retryAfter > 0) pauseS = spread(answer.retryAfter);
      if (answer.status !== 200 && answer.status !== 204) throw new Error(`status ${answer.status}`);
      failures = 0;
      tell("");
    } catch (error) {
      if (document.hidden) continue;
      failures += 1;
      pauseS = Math.max(pauseS, spread(Math.min(2 ** (failures - 1), LONGEST_PAUSE_S)));
      if (failures > 1) tell("The site does not answer. This page asks again by itself.");
    }
    await pause(pauseS);
  }
}

document.querySelectorAll("[data-live]").forEach(keepUpToDate);
