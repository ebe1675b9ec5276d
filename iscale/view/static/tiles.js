// Layers of tiles on a slide: BokehJS's tile renderer, with four things of our own. It asks for no tile that is not
// there, and for none ahead; a layer's tiles do not shine through each other, and meet at whole pixels; when what is
// shown changes, the old tiles stay until the new ones are there; and the ranges are not its to set: every layer would
// stretch them once for the same change of the window's size.

const MOST_KEPT = 500;

export class TileLayer {
  // about: of the server; finest: the last zoom that has tiles; fit: makes the ranges fit the frame, at every paint.
  constructor(about, finest, smoothing, fit) {
    this.fit = fit;
    const side = 256 * 2 ** about.finest * about.pixel_um;
    const drawn = window.devicePixelRatio >= 1.5 ? 128 : 181;
    const [height, width] = about.shape_px;
    const count = (n, zoom) => Math.ceil(n / (256 * 2 ** (about.finest - zoom)));
    this.address = null;
    this.opacity = 1;
    this.source = new Bokeh.WMTSTileSource({
      url: "", tile_size: 256, min_zoom: 0, max_zoom: finest, wrap_around: false,
      initial_resolution: side / drawn, x_origin_offset: 0, y_origin_offset: side,
    });
    this.source.tile_size = drawn;
    this.source.get_image_url = (x, y, z) => this.address(z, x, 2 ** z - 1 - y);
    this.source.is_valid_tile = (x, y, z) => {
      const row = 2 ** z - 1 - y;
      return this.address && z <= finest && x >= 0 && row >= 0 && x < count(width, z) && row < count(height, z);
    };
    this.renderer = new Bokeh.TileRenderer({ tile_source: this.source, smoothing, level: "image" });
  }

  attach(view) {
    this.view = view;
    const kind = Object.getPrototypeOf(view);
    const canvas = document.createElement("canvas"), own = canvas.getContext("2d");
    view._prefetch_tiles = view._map_data = () => {};
    view._enforce_aspect_ratio = () => this.fit();
    view._draw_tile = (_, key) => this.#draw(own, key);
    view._paint = (ctx) => {
      const { width, height } = view.plot_view.frame.bbox;
      if (!(ctx.canvas.width && ctx.canvas.height && width > 0 && height > 0)) return; // not laid out yet, or hidden
      if (canvas.width !== ctx.canvas.width || canvas.height !== ctx.canvas.height)
        Object.assign(canvas, { width: ctx.canvas.width, height: ctx.canvas.height });
      own.setTransform(1, 0, 0, 1, 0, 0);
      own.clearRect(0, 0, canvas.width, canvas.height);
      own.setTransform(ctx.getTransform());
      kind._paint.call(view, own);
      ctx.save();
      ctx.setTransform(1, 0, 0, 1, 0, 0);
      ctx.globalAlpha = this.opacity;
      if (this.address) ctx.drawImage(canvas, 0, 0);
      ctx.restore();
      if (this.source.tiles.size > MOST_KEPT) this.#forget();
    };
  }

  // Show other tiles: `address` gives theirs; null shows none.
  show(address, opacity) {
    this.opacity = opacity;
    const text = address ? address(0, 0, 0) : null;
    if (text !== this.text) {
      [this.text, this.address] = [text, address];
      if (address && this.view) this.#renew(); else this.source.tiles.clear();
    }
    this.view?.request_paint();
  }

  get waiting() {
    return [...this.#seen()].filter((key) => {
      const tile = this.source.tiles.get(key);
      return !tile || !(tile.finished || tile.loaded) || tile.old;
    }).length;
  }

  #draw(own, key) {
    const tile = this.source.tiles.get(key);
    if (!tile?.loaded) return;
    const { a: ratio } = own.getTransform();
    const [[left, right], [top, bottom]] = this.view.coordinates.map_to_screen(
      [tile.bounds[0], tile.bounds[2]], [tile.bounds[3], tile.bounds[1]]);
    const [x0, x1, y0, y1] = [left, right, top, bottom].map((v) => Math.round(v * ratio) / ratio);
    own.clearRect(x0, y0, x1 - x0, y1 - y0);
    own.imageSmoothingEnabled = this.renderer.smoothing;
    own.drawImage(tile.img, x0, y0, x1 - x0, y1 - y0);
    tile.finished = true;
  }

  #seen() {
    const { width, height } = this.view.plot_view.frame.bbox;
    const extent = this.view.get_extent();
    const zoom = this.source.get_level_by_extent(extent, height, width);
    return new Set(this.source.get_tiles_by_extent(extent, zoom).map(([x, y, z]) => this.source.tile_xyz_to_key(x, y, z)));
  }

  #forget() {
    const seen = this.#seen();
    for (const key of [...this.source.tiles.keys()]) if (!seen.has(key)) this.source.tiles.delete(key);
  }

  #renew() {
    this.#forget();
    for (const [key, tile] of this.source.tiles) {
      if (!tile.loaded) { this.source.tiles.delete(key); continue; }
      const text = this.text, image = new Image();
      tile.old = true;
      image.onload = () => {
        if (text !== this.text) return;
        Object.assign(tile, { img: image, old: false });
        this.view.request_paint();
      };
      image.src = this.source.get_image_url(...tile.tile_coords);
    }
  }
}
