// Draws the figures of a page, light or dark as the reader's system is.
const dark = matchMedia("(prefers-color-scheme: dark)");
const read = (id) => JSON.parse(document.getElementById(id)?.textContent || "{}");
function draw() {
  const template = read("templates")[dark.matches ? "dark" : "light"];
  for (const [id, figure] of Object.entries(read("figures"))) {
    const place = document.getElementById(id);
    if (!place) continue;
    const config = { responsive: true, displayModeBar: false };
    Plotly.react(place, figure.data, { ...figure.layout, template, autosize: true }, config);
  }
}
dark.addEventListener("change", draw);
draw();
