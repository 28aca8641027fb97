"use strict";
// The page of xee_tf.explore. All addresses are relative, so that it also works behind a proxy.
// A page that was saved has a picture and the legend of each layer, and asks no server.

const config = JSON.parse(document.getElementById("config").textContent);

function element(parent, tag, className, text) {
  const found = parent.appendChild(document.createElement(tag));
  if (className) found.className = className;
  if (text !== undefined) found.textContent = text; // never HTML: names are the user's
  return found;
}

const map = L.map("map", { minZoom: 0, maxZoom: config.deepest, zoomAnimation: false, fadeAnimation: false });
map.attributionControl.setPrefix(false);
L.control.scale({ imperial: false }).addTo(map);
if (config.basemap) {
  L.tileLayer(config.basemap.url, { ...config.basemap.options, maxZoom: config.deepest }).addTo(map);
}

// The note: where to zoom in, what is computed, and errors.
const note = L.control({ position: "bottomleft" });
note.onAdd = () => element(document.createElement("div"), "div", "panel note");
note.addTo(map);

const busy = new Set();
let problems = {};

function showNote() {
  const box = note.getContainer();
  box.replaceChildren();
  const shown = layers.filter((layer) => map.hasLayer(layer.tiles));
  const hidden = shown.filter((layer) => map.getZoom() < layer.least_zoom).map((layer) => layer.name);
  if (hidden.length) element(box, "p", "zoom", `Zoom in to see ${hidden.join(", ")}`);
  if (busy.size) element(box, "p", "busy", "Computing …");
  for (const layer of shown) {
    if (problems[layer.name]) element(box, "p", "problem", `${layer.name}: ${problems[layer.name]}`);
  }
}

async function readProblems() {
  try {
    problems = await (await fetch("problems")).json();
  } catch {
    problems = Object.fromEntries(layers.map((layer) => [layer.name, "The map was closed."]));
  }
  showNote();
}

// The panel: a switch, the opacity and the legend of each layer.
const panel = L.control({ position: "topright" });
panel.onAdd = () => {
  const box = element(document.createElement("div"), "div", "panel layers");
  L.DomEvent.disableClickPropagation(box);
  L.DomEvent.disableScrollPropagation(box);
  return box;
};
panel.addTo(map);

function showLegend(box, name, legend) {
  for (const each of legend.classes ?? []) {
    const row = element(box, "div", "class");
    element(row, "i").style.background = each.color;
    element(row, "span", "", each.name);
  }
  if (legend.ramp) {
    if (legend.band !== name) element(box, "div", "band", legend.band);
    element(box, "div", "ramp").style.background = `linear-gradient(to right, ${legend.ramp.join(",")})`;
    const ends = element(box, "div", "ends");
    for (const end of legend.ends) element(ends, "span", "", end);
  }
}

const layers = config.layers.map((layer, number) => {
  const style = { opacity: layer.opacity, className: layer.pixelated ? "pixelated" : "", zIndex: number + 2 };
  const tiles = layer.image
    ? L.imageOverlay(layer.image, layer.bounds, style)
    : L.tileLayer(`tiles/${number}/{z}/{x}/{y}.png`, {
        ...style,
        minZoom: layer.least_zoom,
        maxZoom: config.deepest,
        bounds: layer.bounds,
        updateWhenZooming: false,
        keepBuffer: 1,
      });
  tiles.on("loading", () => busy.add(number) && showNote());
  tiles.on("load", () => busy.delete(number) && showNote());
  tiles.on("tileerror", readProblems);
  const outline = L.polygon(layer.outline, { color: "#3388ff", weight: 1, fill: false, interactive: false });

  const box = element(panel.getContainer(), "div", "layer");
  const label = element(box, "label");
  const shown = element(label, "input");
  shown.type = "checkbox";
  shown.checked = true;
  element(label, "span", "", layer.name);
  const opacity = element(box, "input");
  Object.assign(opacity, { type: "range", min: 0, max: 1, step: 0.05, value: layer.opacity, title: "Opacity" });
  opacity.addEventListener("input", () => tiles.setOpacity(Number(opacity.value)));
  const legend = element(box, "div", "legend");

  let asked = false;
  // The values of a legend may be estimated from pixels, which the first tile does, too.
  async function readLegend() {
    if (asked || map.getZoom() < layer.least_zoom) return;
    asked = true;
    if (layer.legend) {
      showLegend(legend, layer.name, layer.legend);
      return;
    }
    const answer = await fetch(`legends/${number}`);
    if (answer.ok) showLegend(legend, layer.name, await answer.json());
    else readProblems();
  }
  function toggle() {
    for (const each of [tiles, outline]) shown.checked ? each.addTo(map) : each.remove();
    if (shown.checked) readLegend();
    else busy.delete(number);
    showNote();
  }
  shown.addEventListener("change", toggle);
  map.on("zoomend", () => shown.checked && readLegend());
  return { ...layer, tiles, toggle };
});

// Begin with all layers; if these are too large to be drawn, with the middle of one.
const bounds = L.latLngBounds();
for (const layer of layers) bounds.extend(layer.bounds);
map.fitBounds(bounds);
const coarsest = layers.reduce((best, layer) => (layer.least_zoom < best.least_zoom ? layer : best));
if (map.getZoom() < coarsest.least_zoom) {
  map.setView(L.latLngBounds(coarsest.bounds).getCenter(), coarsest.least_zoom);
}
for (const layer of layers) layer.toggle();
map.on("zoomend", showNote);
window.exploredMap = map;
