// Keeps the desk's numbers fresh: asks for the parts that change, and puts only what is new into the page, so that
// focus, scroll and open details stay. Nothing is asked while the tab is hidden. Without it the page has a link.

import { become } from "./become.js";

const PERIOD_MS = 3000;
const LONGEST_PERIOD_MS = 60000;

const desk = document.querySelector("[data-parts-from]");
const asOf = document.getElementById("as-of");
const connection = document.getElementById("connection");
let period = PERIOD_MS;
let timer = null;
let asking = false;

async function refresh() {
  if (asking || document.hidden) return;
  asking = true;
  try {
    // A redirect leads to the sign-in: the session has ended.
    const answer = await fetch(desk.dataset.partsFrom, { redirect: "manual", signal: AbortSignal.timeout(10000) });
    if (answer.type === "opaqueredirect") return tell(connection, "You are signed out. Load the page again to sign in.");
    if (!answer.ok) throw new Error(answer.status);
    show(await answer.text());
    period = PERIOD_MS;
    tell(asOf, `Live, as of ${new Date().toISOString().slice(11, 19)} UTC`);
    tell(connection, "");
  } catch {
    period = Math.min(period * 2, LONGEST_PERIOD_MS);
    tell(connection, "The site does not answer. The desk asks again by itself.");
  } finally {
    asking = false;
  }
  wait();
}

function wait() {
  clearTimeout(timer);
  timer = document.hidden ? null : setTimeout(refresh, period);
}

function tell(place, words) {
  if (place.textContent !== words) place.textContent = words;
}

function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = desk.querySelector(`[data-part="${part.dataset.part}"]`);
    if (old) become(old, part);
  }
}

document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : refresh());
wait();
