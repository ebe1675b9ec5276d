// The slide: a BokehJS plot in um, y turned up as its tiles want it (so a plot's y is minus the slide's).

import { TileLayer } from "./tiles.js";

export class SlideMap {
  constructor(element, about, told) {
    this.element = element;
    this.about = about;
    this.told = told;
    const [height, width] = about.content_px.map((n) => n * about.pixel_um);
    this.size = { width, height };
    this.image = new TileLayer(about, about.finest, true, () => this.#fit());
    this.overlay = new TileLayer(about, about.finest_of_overlays, false, () => this.#fit());
  }

  async draw() {
    await laidOut(this.element);
    const line = { line_color: "#111111", line_width: 1.2 };
    this.spots = new Bokeh.ColumnDataSource({ data: { x: [], y: [], radius: [], fill: [] } });
    this.outline = new Bokeh.ColumnDataSource({ data: { x: [], y: [] } });
    this.laid = { width: this.element.clientWidth, height: this.element.clientHeight };
    const ranges = this.#ranges(this.size.width / 2, this.size.height / 2, this.#whole(), this.laid);
    const limits = { min_interval: 1, max_interval: 20 * Math.max(this.size.width, this.size.height) };
    this.x = new Bokeh.Range1d({ ...ranges.x, ...limits });
    this.y = new Bokeh.Range1d({ ...ranges.y, ...limits });
    this.pan = new Bokeh.PanTool();
    const free = { line_color: "#d4006a", line_width: 2, fill_color: "#d4006a", fill_alpha: 0.08, line_dash: [] };
    this.box = new Bokeh.BoxSelectTool({ renderers: [], overlay: new Bokeh.BoxAnnotation({ ...free, visible: false }) });
    this.lasso = new Bokeh.LassoSelectTool({ renderers: [], overlay: new Bokeh.PolyAnnotation({ ...free, visible: false }) });
    const wheel = new Bokeh.WheelZoomTool({ zoom_on_axis: false, speed: 1 / 400 });
    this.plot = new Bokeh.Plot({
      x_range: this.x, y_range: this.y, sizing_mode: "stretch_both", toolbar_location: null, min_border: 0,
      outline_line_color: null, border_fill_color: null, background_fill_color: null, lod_threshold: null,
      title: null,
    });
    this.plot.add_tools(this.pan, wheel, this.box, this.lasso);
    Object.assign(this.plot.toolbar, { active_drag: this.pan, active_scroll: wheel, logo: null });
    this.circles = new Bokeh.Circle({
      x: { field: "x" }, y: { field: "y" }, radius: { field: "radius" }, fill_color: { field: "fill" }, ...line,
    });
    const patch = new Bokeh.Patch({
      x: { field: "x" }, y: { field: "y" }, fill_color: "#d4006a", fill_alpha: 0.06, line_color: "#d4006a", line_width: 2,
    });
    this.plot.renderers = [
      this.image.renderer, this.overlay.renderer,
      new Bokeh.GlyphRenderer({ data_source: this.spots, glyph: this.circles }),
      new Bokeh.GlyphRenderer({ data_source: this.outline, glyph: patch }),
    ];
    this.plot.on_event("mousemove", ({ x, y }) => this.told.over(x, -y));
    this.plot.on_event("mouseleave", () => this.told.left());
    this.plot.on_event("selectiongeometry", (event) => event.final !== false && this.#drawn(event.geometry));
    this.plot.on_event("rangesupdate", () => this.told.moved());
    const documents = new Bokeh.Document();
    documents.add_root(this.plot);
    const views = await Bokeh.embed.add_document_standalone(documents, this.element);
    this.view = views.get_one(this.plot);
    for (const layer of [this.image, this.overlay]) layer.attach(views.get_one(layer.renderer));
  }

  // Centre in um of the slide, and um per CSS pixel.
  get place() {
    const { x, y } = this;
    return { x: (x.start + x.end) / 2, y: -(y.start + y.end) / 2, s: (x.end - x.start) / this.laid.width };
  }

  go({ x, y, s }) {
    this.laid = this.#frame();
    const scale = Math.min(Math.max(s, this.about.pixel_um / 16), 4 * this.#whole());
    const ranges = this.#ranges(x, y, scale, this.laid);
    this.x.setv(ranges.x);
    this.y.setv(ranges.y);
    this.told.moved();
  }

  // Told at every paint, before anything is drawn: where the frame has another size than the ranges were made for, the
  // centre and the scale stay. What is painted after it sees the new ranges.
  #fit() {
    const { width, height } = this.#frame();
    if (width !== this.laid.width || height !== this.laid.height) this.go(this.place);
  }

  whole() {
    this.go({ x: this.size.width / 2, y: this.size.height / 2, s: this.#whole() });
  }

  zoom(factor) {
    const place = this.place;
    this.go({ ...place, s: place.s * factor });
  }

  move(right, down) {
    const { width, height } = this.laid, place = this.place;
    this.go({ ...place, x: place.x + right * width * place.s, y: place.y + down * height * place.s });
  }

  // Corners of what is in view, cut to the slide.
  corners() {
    const cut = (v, most) => Math.min(Math.max(v, 0), most);
    const [x0, x1] = [cut(this.x.start, this.size.width), cut(this.x.end, this.size.width)];
    const [y0, y1] = [cut(-this.y.end, this.size.height), cut(-this.y.start, this.size.height)];
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
  }

  draws(kind) {
    this.plot.toolbar.active_drag = { box: this.box, free: this.lasso }[kind] ?? this.pan;
    for (const [tool, name] of [[this.pan, undefined], [this.box, "box"], [this.lasso, "free"]]) tool.active = kind === name;
    this.element.dataset.draws = kind ?? "";
  }

  showSpots(x, y, radius, fill, line) {
    this.circles.line_color = { value: line };
    this.spots.data = { x, y: y.map((v) => -v), radius, fill };
  }

  showRegion(corners) {
    const closed = corners ? [...corners, corners[0]] : [];
    this.outline.data = { x: closed.map(([x]) => x), y: closed.map(([, y]) => -y) };
  }

  // Its size in CSS pixels; the last one while it is hidden.
  #frame() {
    const { width, height } = this.view?.frame.bbox ?? {};
    return width > 0 && height > 0 ? { width, height } : this.laid;
  }

  #whole() {
    const { width, height } = this.#frame();
    return 1.04 * Math.max(this.size.width / width, this.size.height / height);
  }

  #ranges(x, y, s, { width, height }) {
    return {
      x: { start: x - (s * width) / 2, end: x + (s * width) / 2 },
      y: { start: -y - (s * height) / 2, end: -y + (s * height) / 2 },
    };
  }

  #drawn(geometry) {
    const corners = geometry.type === "rect"
      ? [[geometry.x0, -geometry.y1], [geometry.x1, -geometry.y1], [geometry.x1, -geometry.y0], [geometry.x0, -geometry.y0]]
      : geometry.type === "poly" ? thinned([...geometry.x].map((x, i) => [x, -geometry.y[i]])) : null;
    if (corners && corners.length > 2) this.told.drawn(corners);
  }
}

// A frame of a notebook, or a tab behind, may have no size yet.
function laidOut(element) {
  return new Promise((done) => {
    const seen = new ResizeObserver(() => {
      if (!element.clientWidth || !element.clientHeight) return;
      seen.disconnect();
      done();
    });
    seen.observe(element);
  });
}

// At most 200 corners, so that a freehand line fits an address.
function thinned(corners) {
  const step = Math.ceil(corners.length / 200);
  return corners.filter((_, i) => i % step === 0);
}
