// What the served pages do: follow the database, sort and filter tables, answer a budget. No page needs it to be read.

// Live: the page is asked for again; what carries data-live is put in place, and figures are drawn anew.
let every = Number(document.body.dataset.every || 0);
let tag = "";
const told = (id) => JSON.parse(document.getElementById(id)?.textContent || "null");
async function look() {
  try {
    const answer = await fetch(location.href, { headers: tag ? { "If-None-Match": tag } : {} });
    if (answer.status === 200) {
      tag = answer.headers.get("ETag") || "";
      replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
    say("");
  } catch {
    say("The server does not answer; trying again.");
  }
  if (every) setTimeout(look, every);
}
function say(line) {
  const place = document.getElementById("said");
  if (place && place.textContent !== line) place.textContent = line;
}
function replace(page) {
  if (page.getElementById("figures") && !document.getElementById("figures")) return location.reload();
  every = Number(page.body.dataset.every || 0);
  const held = document.activeElement?.getAttribute("href");
  for (const part of page.querySelectorAll("[data-live]")) {
    const place = document.getElementById(part.id);
    if (!place || place.innerHTML === part.innerHTML) continue;
    const inside = place.contains(document.activeElement);
    place.innerHTML = part.innerHTML;
    if (inside && held) place.querySelector(`[href="${CSS.escape(held)}"]`)?.focus();
  }
  let drawn = false;
  for (const data of page.querySelectorAll('script[type="application/json"]')) {
    const place = document.getElementById(data.id);
    if (!place || place.textContent === data.textContent) continue;
    place.textContent = data.textContent;
    drawn ||= data.id === "figures";
  }
  if (drawn) draw();
  list();
  offer();
}

// The table of trials: one row of JSON a trial, drawn as far as it is asked for.
const STEP = 100;
const shown = { sort: "", down: false, most: STEP };
function list() {
  const table = document.getElementById("trials");
  if (!table) return;
  const { columns, rows } = told("trial-rows");
  const words = (document.getElementById("filter").value || "").toLowerCase().split(/\s+/).filter(Boolean);
  const arm = document.getElementById("filter-arm").value;
  let kept = rows.filter((row) => (!arm || row.arm === arm) && words.every((word) => row.text.includes(word)));
  if (shown.sort) {
    const sign = shown.down ? -1 : 1;
    const blank = (value) => value === null || value === undefined || value === "";
    kept = kept.slice().sort((a, b) => {
      const [x, y] = [a[shown.sort], b[shown.sort]];
      if (blank(x) || blank(y)) return blank(x) - blank(y);
      return sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
    });
  }
  for (const head of table.querySelectorAll("th")) {
    const own = head.dataset.key === shown.sort;
    if (own) head.setAttribute("aria-sort", shown.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  const body = table.querySelector("tbody");
  body.replaceChildren(
    ...kept.slice(0, shown.most).map((row) => {
      const line = document.createElement("tr");
      for (const column of columns) {
        const cell = document.createElement("td");
        if (column.words) cell.className = "words";
        const text = row.shown[column.key] ?? "";
        if (column.key === "number") {
          const link = document.createElement("a");
          link.href = `/trial/${row.id}`;
          link.textContent = text;
          cell.append(link);
        } else cell.textContent = text;
        line.append(cell);
      }
      return line;
    }),
  );
  const left = kept.length - Math.min(kept.length, shown.most);
  document.getElementById("counted").textContent =
    `${kept.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} trials`;
  const more = document.getElementById("more");
  more.hidden = left === 0;
  more.textContent = `Show ${Math.min(left, STEP)} more`;
}
function wire() {
  const table = document.getElementById("trials");
  if (!table) return;
  for (const button of table.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const key = button.parentElement.dataset.key;
      shown.down = shown.sort === key ? !shown.down : button.parentElement.dataset.first === "down";
      shown.sort = key;
      list();
    });
  }
  const again = () => {
    shown.most = STEP;
    list();
  };
  document.getElementById("filter").addEventListener("input", again);
  document.getElementById("filter-arm").addEventListener("change", again);
  document.getElementById("more").addEventListener("click", () => {
    shown.most += STEP;
    list();
  });
}

// The budget: of all that may be chosen, best validation score first, the first that fits.
function offer() {
  const place = document.getElementById("budget");
  if (!place) return;
  const offers = told("offers");
  const kind = place.querySelector('input[name="kind"]:checked').value;
  const slider = document.getElementById("limit");
  const sizes = offers.map((each) => each[kind]).filter((size) => size !== null).sort((a, b) => a - b);
  if (!sizes.length) return;
  const [low, high] = [Math.log(sizes[0]), Math.log(sizes[sizes.length - 1])];
  const limit = Math.exp(low + ((high - low) * Number(slider.value)) / Number(slider.max)) * (1 + 1e-9);
  const unit = { parameters: "parameters", flops: "FLOPs", latency_ms: "ms" }[kind];
  const rounded = kind === "latency_ms" ? limit.toPrecision(3) : Math.floor(limit).toLocaleString("en");
  slider.setAttribute("aria-valuetext", `at most ${rounded} ${unit}`);
  document.getElementById("limit-told").textContent = `at most ${rounded} ${unit}`;
  const best = offers.find((each) => each[kind] !== null && each[kind] <= limit);
  for (const part of document.querySelectorAll("#budget [data-of]")) {
    part.hidden = !best || part.dataset.of !== best.key;
  }
}
document.getElementById("budget")?.addEventListener("input", offer);

wire();
list();
offer();
if (every) setTimeout(look, every);
