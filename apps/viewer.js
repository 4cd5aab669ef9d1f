() => {
  if (window.viewer) return;
  const viewer = (window.viewer = {opacity: null});
  const kept = {};  // place and window of a picture, so that its next drawing stays where it was
  const figures = () => [...document.querySelectorAll("figure.viewer")];
  const current = () => document.activeElement?.closest?.("figure.viewer") ?? figures().find((each) => each.offsetParent);
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const number = (figure, name) => parseFloat(figure.dataset[name]);

  // ---- place: zoom relative to the whole picture, and the point of the picture (0 to 1) in the middle of the view
  function place(figure) {
    const view = figure.querySelector(".view"), paper = figure.querySelector(".paper");
    const state = figure.state, {clientWidth: across, clientHeight: down} = view;
    if (!across || !down) return;
    const width = number(figure, "width"), height = number(figure, "height");
    const scale = Math.min(across / width, down / height) * state.zoom;
    const half = [across / (2 * width * scale), down / (2 * height * scale)];
    state.x = half[0] >= .5 ? .5 : clamp(state.x, half[0], 1 - half[0]);
    state.y = half[1] >= .5 ? .5 : clamp(state.y, half[1], 1 - half[1]);
    Object.assign(paper.style, {
      maxWidth: "none", maxHeight: "none", width: `${width * scale}px`, height: `${height * scale}px`,
      left: `${across / 2 - state.x * width * scale}px`, top: `${down / 2 - state.y * height * scale}px`,
    });
    state.scale = scale;
    figure.classList.toggle("close", scale * devicePixelRatio >= 3);
    figure.classList.toggle("whole", state.zoom === 1);
    figure.dataset.zoom = state.zoom.toFixed(3);
    tellScale(figure);
  }
  function zoom(figure, times, event) {
    const state = figure.state, box = figure.querySelector(".view").getBoundingClientRect();
    const size = [number(figure, "width"), number(figure, "height")];
    const offset = event ? [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2] : [0, 0];
    const before = state.scale, zoomed = clamp(state.zoom * times, 1, 64), after = before * zoomed / state.zoom;
    state.zoom = zoomed;
    state.x += offset[0] / size[0] * (1 / before - 1 / after);
    state.y += offset[1] / size[1] * (1 / before - 1 / after);
    place(figure);
  }
  function pan(figure, dx, dy) {
    const state = figure.state;
    state.x -= dx / (number(figure, "width") * state.scale);
    state.y -= dy / (number(figure, "height") * state.scale);
    place(figure);
  }
  function fit(figure) { Object.assign(figure.state, {zoom: 1, x: .5, y: .5}); place(figure); }

  // ---- scale bar and ruler
  const length = (um) => um >= 1e4 ? `${+(um / 1e4).toPrecision(3)} cm` : um >= 1e3 ? `${+(um / 1e3).toPrecision(3)} mm`
    : `${+um.toPrecision(3)} µm`;
  const tellLength = (figure, px) => figure.dataset.um ? length(px * number(figure, "um"))
    : `${Math.round(px)} px, scale unknown`;
  function tellScale(figure) {
    const told = figure.querySelector(".scale"), um = number(figure, "um") / figure.state.scale;
    if (!figure.dataset.um) { told.textContent = "Scale unknown"; return; }
    const power = 10 ** Math.floor(Math.log10(150 * um));
    const bar = power * [5, 2, 1].find((step) => step * power <= 150 * um);
    const magnified = "slide" in figure.dataset ? ` · about ${+(10 / um).toPrecision(2)}×` : "";
    told.innerHTML = `<span>${length(bar)}${magnified}</span><i style="width:${bar / um}px"></i>`;
  }
  function pointOf(figure, event) {
    const box = figure.querySelector(".paper").getBoundingClientRect();
    return [(event.clientX - box.left) / figure.state.scale, (event.clientY - box.top) / figure.state.scale];
  }
  function rule(figure, point) {
    const ends = figure.ends?.length === 1 ? [...figure.ends, point] : [point];
    figure.ends = ends;
    drawRuler(figure, ends[1] ?? point);
  }
  function drawRuler(figure, to) {
    const from = figure.ends?.[0];
    figure.querySelector(".ruled").innerHTML = from
      ? `<line x1="${from[0]}" y1="${from[1]}" x2="${to[0]}" y2="${to[1]}"/>` : "";
    figure.querySelector(".measured").textContent = from
      ? tellLength(figure, Math.hypot(to[0] - from[0], to[1] - from[1])) : "First end: click, or arrows and Enter.";
  }
  function setMode(figure, mode) {
    figure.mode = figure.mode === mode ? "" : mode;
    figure.classList.toggle("ruling", figure.mode === "ruler");
    figure.classList.toggle("greying", figure.mode === "grey");
    for (const name of ["ruler", "grey"])
      figure.querySelector(`[data-tool=${name}]`)?.setAttribute("aria-pressed", String(figure.mode === name));
    figure.ends = null;
    figure.cursor = [number(figure, "width") / 2, number(figure, "height") / 2];
    if (figure.mode === "ruler") drawRuler(figure);
    else { figure.querySelector(".ruled").innerHTML = ""; figure.querySelector(".measured").textContent = ""; }
  }
  function moveCursor(figure, dx, dy) {
    const step = 4 / figure.state.scale;
    figure.cursor = [figure.cursor[0] + dx * step, figure.cursor[1] + dy * step];
    const [x, y] = figure.cursor, arm = 8 / figure.state.scale;
    if (figure.ends?.length === 1) { drawRuler(figure, figure.cursor); return; }
    figure.querySelector(".ruled").innerHTML = `<line x1="${x - arm}" y1="${y}" x2="${x + arm}" y2="${y}"/>`
      + `<line x1="${x}" y1="${y - arm}" x2="${x}" y2="${y + arm}"/>`;
  }

  // ---- window and level: the values of the file, drawn anew (DICOM PS3.3 C.11.2.1.2, the linear function)
  async function loadGrey(figure) {
    const {drawn, dataset: {grey}} = figure, answer = await fetch(grey);
    const bitmap = await createImageBitmap(await answer.blob(), {colorSpaceConversion: "none"});
    if (figure.drawn !== drawn || figure.dataset.grey !== grey) return;
    const canvas = document.createElement("canvas");
    Object.assign(canvas, {width: bitmap.width, height: bitmap.height, className: "grey"});
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.drawImage(bitmap, 0, 0);
    const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const low = number(figure, "lowest"), step = number(figure, "step");
    figure.padding = new Uint8Array(bytes.length / 4).map((_, at) => bytes[4 * at + 2]);
    figure.values = new Float32Array(bytes.length / 4).map((_, at) => low + step * (256 * bytes[4 * at] + bytes[4 * at + 1]));
    context.clearRect(0, 0, canvas.width, canvas.height);  // codes are no picture: the base shows through till one is drawn
    figure.querySelector("canvas.grey")?.remove();
    figure.querySelector(".base").after(canvas);
    canvas.setAttribute("aria-hidden", "true");
    tellWindow(figure);
    if (figure.state.centre !== number(figure, "centre") || figure.state.window !== number(figure, "window")) drawGrey(figure);
  }
  function drawGrey(figure) {
    const canvas = figure.querySelector("canvas.grey");
    if (!canvas) return;
    const {centre, window: width} = figure.state, context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height), pixels = image.data;
    const inverted = "inverted" in figure.dataset;
    figure.values.forEach((value, at) => {
      const share = width > 1 ? (value - (centre - .5)) / (width - 1) + .5 : value > centre - .5 ? 1 : 0;
      const grey = Math.round(255 * (inverted ? 1 - clamp(share, 0, 1) : clamp(share, 0, 1)));
      pixels[4 * at] = pixels[4 * at + 1] = pixels[4 * at + 2] = figure.padding[at] ? 0 : grey;
      pixels[4 * at + 3] = 255;
    });
    context.putImageData(image, 0, 0);
    canvas.dataset.drawn = `${centre} ${width}`;
    tellWindow(figure);
  }
  function tellWindow(figure) {
    const {centre, window: width} = figure.state;
    figure.querySelector(".windowed").textContent = `centre ${+centre.toPrecision(4)}, width ${+width.toPrecision(4)}`;
  }
  function setGrey(figure, centre, width) {
    Object.assign(figure.state, {centre, window: Math.max(1, width)});
    drawGrey(figure);
  }

  // ---- frames of a cine
  const frameCount = (figure) => figure?.cine?.length ?? 0;
  function showFrame(figure, at) {
    if (!frameCount(figure)) return;
    const place = clamp(at, 0, frameCount(figure) - 1), [source, over, words, values] = figure.cine[place];
    const base = figure.querySelector(".base"), slider = figure.querySelector(".frames");
    figure.state.frame = place;
    if (base.getAttribute("src") !== source) base.src = source;
    if (values && figure.dataset.grey !== values) {
      figure.querySelector("canvas.grey")?.remove();  // of the frame before
      figure.dataset.grey = values;
      loadGrey(figure);
    }
    figure.querySelector(".over").innerHTML = over;
    slider.value = place;
    slider.setAttribute("aria-valuetext", words);
    figure.querySelector(".frame-words").textContent = words;
    for (const next of [place - 1, place + 1]) if (figure.cine[next]) new Image().src = figure.cine[next][0];
  }
  function beginCine(figure) {
    const bar = figure.querySelector(".cine");
    figure.cine = bar ? JSON.parse(bar.dataset.frames) : null;
    if (bar) showFrame(figure, figure.state.frame ?? parseInt(bar.dataset.first));
  }

  // ---- new pictures
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => {
    const figure = entry.target.closest("figure.viewer");
    if (figure?.state) place(figure);
  }));
  function begin(figure) {
    const fresh = {zoom: 1, x: .5, y: .5, divide: 50, centre: number(figure, "centre"), window: number(figure, "window")};
    const known = kept[figure.dataset.key];
    Object.assign(figure, {drawn: figure.dataset.drawn, mode: "", ends: null, values: null});
    figure.querySelector("canvas.grey")?.remove();
    figure.state = kept[figure.dataset.key] = known ?? fresh;
    figure.style.setProperty("--divide", `${figure.state.divide}%`);
    const divider = figure.querySelector(".divider");
    if (divider) divider.value = figure.state.divide;
    beginCine(figure);
    showOpacity(figure);
    place(figure);
    if (figure.dataset.grey) loadGrey(figure);
    sizes.observe(figure.querySelector(".view"));
    if (!known) {
      // To the desk, not to the picture: beside the rail that stays where it is, and the words at the rail's top do not.
      const covered = document.querySelector(".head")?.getBoundingClientRect().height ?? 0;
      scrollTo({top: Math.max(0, figure.closest(".desk").getBoundingClientRect().top + scrollY - covered)});
      if (viewer.awaited) figure.focus({preventScroll: true});
      viewer.awaited = false;
    }
  }
  function showOpacity(figure) {
    const opacity = viewer.opacity ?? document.querySelector("#opacity input[type=range]")?.value ?? 1;
    figure.querySelectorAll(".over, .half").forEach((layer) => { layer.style.opacity = opacity; });
  }
  // The slider, its buttons and keys act on the picture at once; Gradio's slider hears of it as of a person's hand.
  const opacitySteps = {
    "overlay-toggle": (now) => { if (now > 0) viewer.shownBefore = now; return now > 0 ? 0 : viewer.shownBefore ?? .5; },
    "overlay-fainter": (now) => now - .1, "overlay-stronger": (now) => now + .1,
  };
  document.addEventListener("input", (event) => {
    if (!event.target.matches?.("#opacity input") || !event.target.value) return;
    viewer.opacity = clamp(parseFloat(event.target.value), 0, 1);
    figures().forEach(showOpacity);
  });
  document.addEventListener("click", (event) => {
    const step = opacitySteps[event.target.closest?.("button")?.id];
    const slider = document.querySelector("#opacity input[type=range]");
    if (!step || !slider) return;
    slider.value = step(viewer.opacity ?? parseFloat(slider.value));
    slider.dispatchEvent(new Event("input", {bubbles: true}));
  });
  // Gradio changes a figure in place, so a new drawing is known by its sum.
  const beginNew = () => figures().forEach((figure) => figure.drawn === figure.dataset.drawn || begin(figure));
  const watched = {childList: true, subtree: true, attributes: true, attributeFilter: ["data-drawn"]};
  new MutationObserver(beginNew).observe(document.body, watched);

  // ---- work that runs: what is waited for in words; what a reload dropped; uploads that the server would refuse
  const tellWork = () => {
    tellToasts();
    drawComplaint();
    showComplaint();
    for (const {firstChild: name} of document.querySelectorAll(".upload .filename span"))
      if (name && harmless(name.data) !== name.data) name.data = harmless(name.data);  // in place, where Gradio wrote it
    const tracker = document.querySelector(".words [data-testid=status-tracker]:not(.hide, :has(.error))");
    const text = tracker?.innerText || tracker?.textContent || "";
    const place = /queue: (\d+)\//.exec(text), line = document.querySelector(".waiting [role=status]");
    const others = place ? (place[1] === "1" ? "one other analysis comes first" : `${place[1]} other analyses come first`) : "";
    const words = others ? `Waiting: ${others}.` : "Working…";
    document.querySelector(".desk")?.classList.toggle("working", Boolean(tracker));
    if (line && line.textContent !== words) line.textContent = words;
    if (tracker) sessionStorage.setItem("working", "1");
    else if (viewer.wasWorking && !viewer.leaves) sessionStorage.removeItem("working");
    viewer.wasWorking = Boolean(tracker);
  };
  setInterval(tellWork, 250);
  addEventListener("beforeunload", () => {  // Gradio then ends what it waits for, as a fault
    viewer.leaves = true;
    setTimeout(() => { viewer.leaves = false; }, 5000);  // the page stayed
  });
  if (sessionStorage.getItem("working")) {
    sessionStorage.removeItem("working");
    complain("The page was loaded anew while it worked: that result was dropped, and its files are deleted. Begin again.");
  }
  function complain(words) {
    viewer.complaint = words;
    document.querySelector(".complaint.ours")?.remove();
    drawComplaint();
  }
  function drawComplaint() {  // again where Gradio built the page anew since
    if (!viewer.complaint || document.querySelector(".complaint.ours")) return;
    const told = Object.assign(document.createElement("div"), {className: "complaint ours", textContent: viewer.complaint});
    told.setAttribute("role", "alert");
    document.querySelector(".words")?.after(told);
  }
  function showComplaint() {  // a new one is scrolled to
    const told = document.querySelector(".complaint"), text = told?.textContent ?? "";
    if (text && text !== viewer.told) told.scrollIntoView({block: "nearest"});
    viewer.told = text;
  }
  function tellToasts() {  // what Gradio itself says would lie over the notice
    for (const toast of document.querySelectorAll(".toast-body")) {
      const text = toast.querySelector(".toast-text, .toast-message-text")?.textContent.trim() ?? "";
      if (text) complain(/currently busy/.test(text) ? "Too many analyses wait already, so this one was not begun. "
        + "Try again in a minute; choose a file of your own anew." : text);
      toast.querySelector(".toast-close")?.click();
    }
  }
  const harmless = (name) => name.replace(/[\p{Cc}\p{Cf}]/gu, "\ufffd");  // also marks that turn the direction of text
  const most = () => parseInt(document.querySelector("[data-most]")?.dataset.most ?? "0");
  function refuseLarge(event, files) {
    const large = [...(files ?? [])].find((file) => most() && file.size > most());
    complain(large ? `'${harmless(large.name)}' has ${Math.ceil(large.size / 1e6)} MB: at most ${Math.floor(most() / 1e6)} MB are taken. `
      + "Choose a smaller file, or ask who runs this page." : "");
    if (large) { event.preventDefault(); event.stopImmediatePropagation(); } else choose();
  }
  document.addEventListener("change", (event) => {
    if (event.target.matches?.("input[type=file]")) refuseLarge(event, event.target.files);
  }, true);
  document.addEventListener("drop", (event) => refuseLarge(event, event.dataTransfer?.files), true);
  document.addEventListener("click", (event) => { if (event.target.closest?.(".strip button")) complain(""); }, true);

  // ---- mouse
  const figureOf = (event, part = ".view") => event.target.closest?.(part)?.closest("figure.viewer");
  document.addEventListener("wheel", (event) => {
    const figure = figureOf(event);
    if (!figure) return;
    event.preventDefault();
    zoom(figure, Math.exp(-clamp(event.deltaY, -200, 200) / 400), event);
  }, {passive: false});
  document.addEventListener("dblclick", (event) => { const figure = figureOf(event); if (figure && !figure.mode) fit(figure); });
  let drag = null;
  document.addEventListener("pointerdown", (event) => {
    const figure = figureOf(event);
    if (!figure || event.button > 0) return;
    figure.focus({preventScroll: true});
    if (figure.mode === "ruler") { rule(figure, pointOf(figure, event)); event.preventDefault(); return; }
    drag = {figure, x: event.clientX, y: event.clientY, divides: Boolean(event.target.closest(".line"))};
    event.preventDefault();
  });
  document.addEventListener("pointermove", (event) => {
    const ruling = figureOf(event);
    if (ruling?.mode === "ruler" && ruling.ends?.length === 1) drawRuler(ruling, pointOf(ruling, event));
    if (!drag) return;
    const {figure} = drag, dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    Object.assign(drag, {x: event.clientX, y: event.clientY});
    if (drag.divides) divide(figure, figure.state.divide + 100 * dx / (number(figure, "width") * figure.state.scale));
    else if (figure.mode === "grey") {
      const unit = number(figure, "window") / 300;
      setGrey(figure, figure.state.centre + dy * unit, figure.state.window + dx * unit);
    } else pan(figure, dx, dy);
  });
  for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => { drag = null; });
  function divide(figure, share) {
    figure.state.divide = clamp(share, 0, 100);
    figure.style.setProperty("--divide", `${figure.state.divide}%`);
    figure.querySelector(".divider").value = figure.state.divide;
  }
  document.addEventListener("input", (event) => {
    const figure = figureOf(event, ".divider"), cine = figureOf(event, ".frames");
    if (figure) divide(figure, parseFloat(event.target.value));
    if (cine) showFrame(cine, parseInt(event.target.value));
  });
  document.addEventListener("change", (event) => {
    const figure = figureOf(event, ".presets");
    if (figure) setGrey(figure, ...event.target.value.split(" ").map(Number));
  });
  const actions = {
    in: (figure) => zoom(figure, 1.5), out: (figure) => zoom(figure, 1 / 1.5), fit,
    ruler: (figure) => setMode(figure, "ruler"), grey: (figure) => setMode(figure, "grey"),
    full: (figure) => document.fullscreenElement ? document.exitFullscreen() : figure.requestFullscreen(),
  };
  const choose = (example) => document.querySelectorAll(".strip button").forEach((each) =>
    each.classList.toggle("chosen", each === example));
  const CONTROLS = "button, a, summary, select, textarea, input, label, [role=button], [role=option], [contenteditable]";
  document.addEventListener("click", (event) => {
    const tool = event.target.closest?.("[data-tool]");
    if (tool) { actions[tool.dataset.tool](tool.closest("figure.viewer")); return; }
    const strip = event.target.closest?.(".marks");
    if (strip) {
      const box = strip.getBoundingClientRect(), cine = strip.closest("figure.viewer");
      showFrame(cine, Math.floor((event.clientX - box.left) / box.width * frameCount(cine)));
      return;
    }
    const example = event.target.closest?.(".strip button");
    if (example) {
      choose(example);
      viewer.awaited = true;
    } else if (event.target.closest?.(CONTROLS)) return;
    const figure = figures()[0];
    if (figure && !event.target.closest?.("figure.viewer")) figure.focus({preventScroll: true});
  });

  // ---- keys
  function stepExample(by) {
    const buttons = [...document.querySelectorAll(".strip button")];
    if (!buttons.length) return;
    const at = buttons.findIndex((each) => each.classList.contains("chosen"));
    buttons[at < 0 ? (by > 0 ? 0 : buttons.length - 1) : (at + by + buttons.length) % buttons.length].click();
  }
  const press = (selector) => document.querySelector(selector)?.click();
  const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  const keys = {
    " ": () => press("#overlay-toggle"), "-": () => press("#overlay-fainter"), "+": () => press("#overlay-stronger"),
    "=": () => press("#overlay-stronger"), "?": () => press("#keys-help > summary"),
    z: () => actions.in(current()), x: () => actions.out(current()), 0: () => fit(current()),
    r: () => actions.ruler(current()), f: () => actions.full(current()),
    w: () => current().dataset.grey && actions.grey(current()),
  };
  document.addEventListener("keydown", (event) => {
    const target = event.target, figure = current();
    const takesText = target.closest?.("textarea, select, [contenteditable], input:not([type=range], [type=checkbox], [type=radio])");
    if (takesText || event.ctrlKey || event.altKey || event.metaKey || !document.querySelector("#keys-on")?.checked) return;
    const isOnControl = target.closest?.(CONTROLS), arrow = arrows[event.key];
    if (figure && target === figure && arrow && (event.shiftKey || figure.mode)) {
      const times = event.shiftKey ? 10 : 1;
      if (figure.mode === "ruler") moveCursor(figure, times * arrow[0], times * arrow[1]);
      else if (figure.mode === "grey") {
        const unit = number(figure, "window") / 50 * times;
        setGrey(figure, figure.state.centre + arrow[1] * unit, figure.state.window + arrow[0] * unit);
      } else pan(figure, -60 * arrow[0], -60 * arrow[1]);
    } else if (figure && target === figure && event.key === "Enter" && figure.mode === "ruler") rule(figure, figure.cursor);
    else if (figure && event.key === "Escape" && figure.mode) setMode(figure, figure.mode);
    else if (arrow && !isOnControl && arrow[0] && !event.shiftKey && figure && frameCount(figure))
      showFrame(figure, figure.state.frame + arrow[0]);
    else if (arrow && !isOnControl && arrow[0] && !event.shiftKey) stepExample(arrow[0]);
    else {
      const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      if (!keys[name] || (name === " " && isOnControl) || (/[zx0rfw]/.test(name) && !figure)) return;
      keys[name]();
    }
    event.preventDefault();
  });
}
