"use strict";
(() => {
  const node = document.getElementById("figures");
  const figures = node ? JSON.parse(node.textContent) : {};
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const layoutOf = (figure, width) => {
    const text = colour("--text"), grid = colour("--line");
    const axis = (own) => ({ gridcolor: grid, linecolor: grid, tickcolor: grid, ...own });
    const layout = JSON.parse(JSON.stringify(figure.layout));
    return {
      ...layout,
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
      height: figure.height, width, showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: width < 480 ? 10 : 12, color: text },
      margin: { l: 8, r: 14, t: 22, b: 40 }, hovermode: "closest",
    };
  };
  const draw = () => {
    for (const [key, figure] of Object.entries(figures)) {
      const target = document.getElementById("plot-" + key);
      const options = { displayModeBar: false, displaylogo: false, staticPlot: false };
      Plotly.react(target, figure.data, layoutOf(figure, target.clientWidth), options);
    }
  };
  if (Object.keys(figures).length) {
    draw();
    dark.addEventListener("change", draw);
    let wait = 0;
    window.addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(draw, 120); });
    window.addEventListener("beforeprint", draw);
  }

  const table = document.getElementById("results");
  if (!table) return;
  table.querySelectorAll("thead button").forEach((button) => {
    button.addEventListener("click", () => {
      const cell = button.closest("th"), index = cell.cellIndex;
      const down = cell.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const isNumber = cell.classList.contains("n"), body = table.tBodies[0];
      const key = (row) => row.cells[index].dataset.key;
      const rows = [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = isNumber ? Number(x) - Number(y) : x.localeCompare(y);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
})();
