/*
 * The status page: hears of figures by server-sent events and shows them.
 *
 * The law: what comes is put in as text (textContent), never as markup, and what turns the direction of writing is
 * written out; nothing is asked of any other host; what is not known is shown as a dash, not as 0, and nothing is said
 * to be well before that is known, nor when nobody has said it for a while.
 */
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const NAMES = ["at", "clients", "waiting", "servers_used", "servers_idle", "servers_other", "pinned",
    "transactions", "queries", "wait_50", "wait_95", "wait_99", "cpu"];
  const KEPT = 600;
  const AT_ONCE = 0.0001; // Seconds: the first range of the histogram, in which are those who did not wait.
  const SILENT = 6000; // Milliseconds without a word after which what is shown is old.
  const AGAIN = 10000;
  const LONG = 1; // Seconds: who waits that long for a server is worth a word.

  // Words.

  const REASONS = {
    temporary_object: ["temporary table", "It has made a temporary table or another temporary object; that ends when it is dropped."],
    held_cursor: ["cursor WITH HOLD", "A cursor stays open beyond its transaction; that ends with CLOSE."],
    advisory_lock: ["advisory lock", "It holds an advisory lock of the session; that ends with the unlock."],
    listen: ["LISTEN", "It waits for notifications; that ends with UNLISTEN."],
    sql_statement: ["PREPARE", "It has prepared a statement by SQL; that ends with DEALLOCATE."],
    unknown: ["not known yet", "The server could not be asked what it holds; it is asked again."],
    library_loaded: ["LOAD", "A loaded library stays until the client goes."],
    seed: ["setseed()", "The seed of random() stays until the client goes."],
    sequence: ["currval()", "It asks for a sequence's last value; that ends with DISCARD SEQUENCES."],
    computed_setting: ["computed setting", "A setting was set whose name no text shows; that ends with DISCARD ALL."],
    statement_memory: ["many prepared statements", "It has prepared more than is kept for it."],
  };
  const EVENTS = {
    became_writer: ["is the writer now", "news"],
    no_longer_writer: ["is the writer no longer", "bad"],
    writer_silent: ["is the writer, and does not answer", "bad"],
    writer_back: ["is the writer still, and answers again", "good"],
    reader_in: ["answers readers", "good"],
    reader_out: ["answers readers no longer", "bad"],
    fenced: ["says that it is the writer, and is not believed", "bad"],
    stranger: ["belongs to another cluster, and is left alone", "bad"],
    found: ["was found", "news"],
    gone: ["is in the list of hosts no more", "bad"],
  };
  const STATES = {
    up: ["answers", "good"],
    down: ["cannot be reached", "bad"],
    unknown: ["not known yet", ""],
    unreachable: ["cannot be reached", "bad"],
    silent: ["does not answer", "bad"],
    lost: ["connection lost", "bad"],
    starting: ["starting or stopping", "bad"],
    refused: ["refuses pgproxy", "bad"],
  };

  const PARTS = {
    working: "working",
    transaction: "in an open transaction, idle",
    pinned: "pinned",
    other: "opening or being cleaned",
    idle: "free",
  };

  const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const count = (value) => (value === null || value === undefined ? "–" : grouped.format(value));
  const rate = (value) => {
    if (value === null || value === undefined) return "–";
    return value > 0 && value < 10 ? value.toFixed(1) : count(value);
  };
  const significant = (value) => (value >= 100 ? count(value) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds === 0) return "0 s";
    if (seconds < 0.001) return `${(seconds * 1000).toFixed(2)} ms`;
    if (seconds < 0.9995) return `${significant(seconds * 1000)} ms`;
    if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds);
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
    return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
  }
  const wait = (seconds) => (seconds !== null && seconds !== undefined && seconds <= AT_ONCE ? "none" : duration(seconds));
  const many = (number, one, more) => `${count(number)} ${number === 1 ? one : more}`;
  function bytes(number) {
    return number >= 1 << 30 ? `${(number / (1 << 30)).toFixed(1)} GiB` : `${Math.round(number / (1 << 20))} MiB`;
  }
  function when(text) {
    const time = new Date(text.replace(" UTC", "Z").replace(" ", "T"));
    if (Number.isNaN(time.getTime())) return text;
    const clock = time.toLocaleTimeString("en-GB");
    return time.toDateString() === new Date().toDateString() ? clock : `${time.toLocaleDateString("en-CA")} ${clock}`;
  }

  // Elements.

  /* Text in which nothing is hidden, and nothing makes the rest look otherwise. */
  const plain = (text) => String(text).replace(/[\p{C}\u2028\u2029]/gu, (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`);
  function make(name, { text, children = [], data = {}, ...properties } = {}) {
    const element = document.createElement(name);
    Object.assign(element, properties);
    Object.assign(element.dataset, data);
    if (text !== undefined) element.textContent = plain(text);
    element.append(...children.map((child) => (typeof child === "string" ? plain(child) : child)));
    return element;
  }
  const say = (id, text) => {
    const element = byId(id);
    if (element.textContent !== plain(text)) element.textContent = plain(text);
  };

  /* Make what is in a place like other elements: where it is so already, what is focused, scrolled or selected stays. */
  function fill(place, fresh) {
    fresh.forEach((one, at) => {
      const old = place.childNodes[at];
      if (old === undefined) place.append(one);
      else if (old.nodeName !== one.nodeName) old.replaceWith(one);
      else if (old.nodeType === Node.TEXT_NODE) {
        if (old.data !== one.data) old.data = one.data;
      } else liken(old, one);
    });
    while (place.childNodes.length > fresh.length) place.lastChild.remove();
  }
  function liken(old, fresh) {
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) === value) continue;
      // The page's policy lets scripts set styles, but not write them as text.
      if (name === "style") old.style.cssText = value;
      else old.setAttribute(name, value);
    }
    fill(old, [...fresh.childNodes]);
  }

  /* A table whose columns are [label, class, row => text or elements]. */
  function table(place, part, columns, nothing, what) {
    if (!part || !part.rows.length) {
      fill(byId(place), [make("p", { className: "nothing", text: part ? nothing : "Not known yet." })]);
      return;
    }
    const head = make("tr", { children: columns.map(([label, kind]) => make("th", { text: label, className: kind, scope: "col" })) });
    const rows = part.rows.map((row) => make("tr", {
      children: columns.map(([label, kind, value]) => {
        const shown = value(row);
        const children = Array.isArray(shown) ? shown : [String(shown)];
        return make("td", { className: kind, data: { label }, children });
      }),
    }));
    const built = [make("table", { children: [make("thead", { children: [head] }), make("tbody", { children: rows })] })];
    if (part.left_off) built.push(make("p", { className: "left", text: `and ${many(part.left_off, what[0], what[1])} more: the console shows all` }));
    fill(byId(place), built);
  }
  const lines = (first, second) => [make("span", { children: [make("span", { text: first }), make("small", { text: second })] })];

  // Charts.

  let columns = NAMES.map(() => []);
  let span = 300;
  const of = (name) => columns[NAMES.indexOf(name)];
  const palette = {};
  function readPalette() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["blue", "teal", "amber", "red", "violet", "grey", "line", "quiet"]) {
      palette[name] = style.getPropertyValue(`--${name}`).trim();
    }
  }
  readPalette();

  const open = () => of("servers_used").map((used, at) => used + of("servers_idle")[at] + of("servers_other")[at]);
  const waits = (name) => of(name).map((value) => (value === null ? null : Math.max(AT_ONCE, value)));
  const CHARTS = {
    clients: { series: [["connected", "blue", () => of("clients"), true]] },
    servers: {
      series: [["open", "teal", open, true], ["in use", "blue", () => of("servers_used"), true]],
    },
    queue: { series: [["waiting", "amber", () => of("waiting"), true]] },
    wait: {
      series: [
        ["half", "teal", () => waits("wait_50"), false],
        ["95 %", "blue", () => waits("wait_95"), false],
        ["99 %", "violet", () => waits("wait_99"), false],
      ],
      times: true,
    },
  };
  const charts = [];

  function scale(chart) {
    if (chart.times) {
      return {
        distr: 3,
        range: (_u, _low, high) => [AT_ONCE, Math.max(0.01, 10 ** Math.ceil(Math.log10(Math.max(AT_ONCE, high || 0)) - 1e-9))],
      };
    }
    return { range: (_u, _low, high) => [0, Math.max(4, Math.ceil((high || 0) * 1.12))] };
  }
  function axes(chart) {
    const both = { stroke: () => palette.quiet, grid: { stroke: () => palette.line, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const values = chart.times
      ? (_u, splits) => splits.map((value) => (value === null ? "" : value >= 1 ? `${Math.round(value)} s` : `${Number((value * 1000).toPrecision(3))} ms`))
      : (_u, splits) => splits.map((value) => count(value));
    const left = { ...both, size: 54, gap: 4, values, space: 24 };
    if (chart.times) {
      left.splits = (_u, _axis, low, high) => {
        const found = [];
        for (let power = Math.round(Math.log10(low)); power <= Math.round(Math.log10(high)); power += 1) found.push(10 ** power);
        return found;
      };
      left.filter = (_u, splits) => splits;
    } else {
      left.incrs = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000];
    }
    return [{ ...both, size: 30, gap: 8, space: 76, values: (_u, splits) => splits.map((at) => new Date(at * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" })) }, left];
  }
  function build(holder) {
    const chart = CHARTS[holder.dataset.chart];
    const legend = make("ul", { className: "legend" });
    const values = chart.series.map(([label, ink]) => {
      const value = make("b", { text: "–" });
      const mark = make("i");
      mark.style.setProperty("--ink", `var(--${ink})`);
      legend.append(make("li", { children: [mark, label, value] }));
      return value;
    });
    const plot = make("div", { className: "plot" });
    plot.setAttribute("role", "img");
    holder.append(legend, plot);
    const format = chart.times ? wait : count;
    const show = (u) => {
      const at = u.cursor.idx ?? u.data[0].length - 1;
      values.forEach((value, place) => {
        value.textContent = at >= 0 ? format(u.data[place + 1][at]) : "–";
      });
    };
    const u = new uPlot({
      width: plot.clientWidth || 300,
      height: 160,
      padding: [10, 8, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "pgproxy" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { time: true, range: () => {
          const last = of("at").at(-1) ?? Date.now() / 1000;
          return [last - span, last];
        } },
        y: scale(chart),
      },
      axes: axes(chart),
      series: [{}, ...chart.series.map(([label, ink, , filled]) => ({
        label,
        stroke: () => palette[ink],
        width: 2,
        fill: filled ? () => `${palette[ink]}26` : undefined,
        points: { show: false },
        spanGaps: false,
      }))],
      hooks: { setCursor: [show], setData: [show] },
    }, [[], ...chart.series.map(() => [])], plot);
    new ResizeObserver(() => u.setSize({ width: plot.clientWidth, height: 160 })).observe(plot);
    charts.push({ u, chart, plot });
    holder.dataset.points = "0";
  }
  function draw() {
    const since = (of("at").at(-1) ?? 0) - span;
    for (const { u, chart, plot } of charts) {
      u.setData([of("at"), ...chart.series.map(([, , values]) => values())]);
      // The picture in words, for who does not see it.
      plot.setAttribute("aria-label", chart.series.map(([label], place) => {
        const seen = u.data[place + 1].filter((value, at) => value !== null && u.data[0][at] >= since);
        const format = chart.times ? wait : count;
        if (!seen.length) return `${label}: nothing`;
        return `${label}: ${format(Math.min(...seen))} to ${format(Math.max(...seen))}`;
      }).join("; "));
      u.root.closest(".chart").dataset.points = String(of("at").length);
    }
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readPalette();
    for (const { u } of charts) u.redraw(false, true);
  });

  // What is shown.

  let tables = {};
  let told = false; // Whether the tables belong to the points.
  let live = false;
  let lastWord = null; // When something was heard last.

  function showNow() {
    const last = Object.fromEntries(NAMES.map((name, place) => [name, columns[place].at(-1)]));
    const about = tables.about;
    say("clients", count(last.clients));
    say("clients-more", about ? `of ${count(about.clients_max)} at most` : "applications connected");
    say("used", count(last.servers_used));
    say("used-more", `${many(last.servers_idle ?? 0, "is", "are")} free`);
    say("waiting", count(last.waiting));
    const longest = last.waiting ? Math.max(0, ...(tables.pools?.rows ?? []).map((pool) => pool.maxwait + pool.maxwait_us / 1e6)) : 0;
    byId("waiting").dataset.level = longest >= LONG ? "warn" : "";
    say("waiting-more", last.waiting ? `the longest for ${duration(longest)}` : "nobody waits");
    say("wait", wait(last.wait_95));
    say("wait-more", last.wait_95 === null ? "nobody has asked for one" : "for 95 of 100 clients");
    say("transactions", rate(last.transactions));
    say("transactions-more", `a second, ${rate(last.queries)} queries`);
    say("pinned", count(last.pinned));
    say("pinned-more", last.pinned ? "see below" : "no client keeps a server");
    if (about) {
      const pieces = [`pgproxy ${about.version}`, many(about.workers, "worker", "workers"), `${bytes(about.memory)} of memory`];
      if (last.cpu !== null && last.cpu !== undefined) pieces.push(`${Math.round(last.cpu * 100)} % of a processor`);
      if (about.restarts) pieces.push(`${many(about.restarts, "worker was", "workers were")} started again`);
      say("about", pieces.join(" · "));
    }
    verdict(last, longest);
  }

  function verdict(last, longest) {
    const said = [];
    let level = "good";
    const add = (text, worse) => {
      said.push(text);
      if (level !== "bad") level = worse;
    };
    const hosts = tables.targets?.rows ?? [];
    for (const name of new Set(hosts.map((host) => host.target))) {
      const own = hosts.filter((host) => host.target === name);
      const watched = own.some((host) => host.role !== "unknown");
      if (watched && !own.some((host) => host.role === "writer" && host.state === "up")) add(`Target ${name} has no writer that answers.`, "bad");
      for (const host of own) {
        if (STATES[host.state]?.[1] === "bad") add(`${address(host)} ${STATES[host.state][0]}.`, own.length > 1 ? "warn" : "bad");
      }
    }
    if (longest >= LONG) add(`${many(last.waiting, "client waits", "clients wait")} for a server, the longest for ${duration(longest)}.`, "warn");
    const paused = (tables.pools?.rows ?? []).filter((pool) => pool.paused);
    if (paused.length) add(`${many(paused.length, "pool is", "pools are")} paused.`, "warn");
    if (tables.about && last.clients >= 0.9 * tables.about.clients_max) add(`${count(last.clients)} of ${count(tables.about.clients_max)} possible clients are connected.`, "warn");
    if (!live || !told || last.at === undefined) return;
    if (!said.length) said.push(last.waiting ? "All is well: nobody waits for long." : "All is well: nobody waits.");
    judge(said.slice(0, 3).join(" "), level);
  }

  function judge(text, level) {
    say("verdict", text);
    if (byId("verdict").dataset.level === level) return;
    byId("verdict").dataset.level = level;
    // To be read out: times that grow are not.
    say("announced", text);
  }

  const address = (host) => (String(host.host).includes(":") ? `[${host.host}]:${host.port}` : `${host.host}:${host.port}`);

  function bar(pool) {
    const active = pool.sv_active + pool.sv_being_canceled;
    const parts = {
      working: Math.max(0, active - pool.sv_pinned - pool.sv_in_transaction),
      transaction: pool.sv_in_transaction,
      pinned: pool.sv_pinned,
      other: pool.sv_login + pool.sv_tested + pool.sv_closing,
      idle: pool.sv_idle,
    };
    const there = Object.values(parts).reduce((sum, number) => sum + number, 0);
    const most = Math.max(there, pool.pool_size, 1);
    const spans = Object.entries(parts).filter(([, number]) => number > 0).map(([part, number]) => {
      const piece = make("span", { data: { part }, title: `${count(number)} ${PARTS[part]}` });
      piece.style.width = `${(100 * number) / most}%`;
      return piece;
    });
    const hosts = (tables.targets?.rows ?? []).filter((host) => host.target === pool.target).length;
    const limit = pool.pool_size ? `at most ${pool.pool_size}${hosts > 1 ? " on each host" : ""}` : "as many as the target allows";
    const words = `${active} in use, ${pool.sv_idle} free, ${limit}`;
    const drawn = make("div", { className: "bar", children: spans, role: "img", ariaLabel: spans.map((one) => one.title).join(", ") || "none" });
    return [make("span", { children: [words] }), drawn];
  }

  function showTables() {
    table("pools", tables.pools, [
      ["Database and user", "name", (row) => lines(`${row.database} / ${row.user}`, `${row.pool_mode} mode, target ${row.target}${row.paused ? ", paused" : ""}`)],
      ["Servers", "wide", bar],
      ["Clients", "number", (row) => count(row.cl_active + row.cl_waiting)],
      ["Waiting", "number", (row) => (row.cl_waiting ? [make("span", { className: "alarm", text: count(row.cl_waiting) })] : "0")],
      ["Longest wait", "number", (row) => (row.cl_waiting ? duration(row.maxwait + row.maxwait_us / 1e6) : "–")],
    ], "No client has come yet, so there is no pool.", ["pool", "pools"]);

    table("targets", tables.targets, [
      ["Host", "name", (row) => lines(address(row), `target ${row.target}`)],
      ["Role", "", (row) => [make("span", { className: "badge", data: { role: row.role }, text: row.role === "unknown" ? "not watched" : row.role })]],
      ["State", "", (row) => {
        const [text, level] = STATES[row.state] ?? [row.state, ""];
        return [make("span", { className: "state", data: { level }, text })];
      }],
      ["Behind", "number", (row) => (row.role === "reader" && row.lag !== null ? duration(row.lag) : "–")],
      ["Servers", "number", (row) => (row.max_servers ? `${count(row.servers)} of ${count(row.max_servers)}` : count(row.servers))],
    ], "No target is configured.", ["host", "hosts"]);

    const history = tables.history;
    if (!history || !history.rows.length) {
      fill(byId("history"), [make("p", { className: "nothing", text: history ? "Nothing has happened. Targets with one host are not watched." : "Not known yet." })]);
    } else {
      fill(byId("history"), [make("ul", {
        className: "events",
        // It scrolls.
        tabIndex: 0,
        ariaLabel: "Failovers and other changes",
        children: history.rows.map((row) => {
          const [text, level] = EVENTS[row.event] ?? [row.event, ""];
          return make("li", { data: { level, event: row.event }, children: [make("span", { text: `${row.host} ${text}` }), make("small", { text: `${when(row.time)} · target ${row.target}` })] });
        }),
      })]);
    }

    table("pins", tables.pins, [
      ["Reason", "name", (row) => lines(REASONS[row.reason]?.[0] ?? row.reason, REASONS[row.reason]?.[1] ?? "")],
      ["Statement", "wide", (row) => [make("span", { className: "digest", text: row.digest })]],
      ["Database and user", "", (row) => `${row.database} / ${row.user}`],
      ["Client", "number", (row) => String(row.client)],
      ["For", "number", (row) => duration(row.seconds)],
    ], "No client is pinned.", ["pin", "pins"]);

    const statements = tables.statements;
    const most = Math.max(1e-9, ...(statements?.rows ?? []).map((row) => row.seconds));
    table("statements", statements, [
      ["Statement", "wide", (row) => {
        const share = make("div", { className: "share" });
        share.style.width = `${Math.max(0.5, (100 * row.seconds) / most)}%`;
        return [make("span", { className: "digest", text: row.digest }), share];
      }],
      ["Database", "", (row) => row.database],
      ["Calls", "number", (row) => count(row.calls)],
      ["All together", "number", (row) => duration(row.seconds)],
      ["One call", "number", (row) => duration(row.mean_ms / 1000)],
      ["The longest", "number", (row) => duration(row.max_ms / 1000)],
      ["Rows", "number", (row) => count(row.rows)],
      ["Errors", "number", (row) => (row.errors ? [make("span", { className: "alarm", text: count(row.errors) })] : "0")],
    ], tables.about && !tables.about.statements ? "Statement statistics are turned off (statement_statistics)." : "No statement has been said yet.", ["statement", "statements"]);
  }

  // The link.

  let source = null;
  let heard = 0;
  let again = 0;

  function connected(on) {
    byId("link").dataset.state = on ? "on" : "off";
    say("link", on ? "live" : "not connected, trying again");
    document.body.classList.toggle("stale", !on);
    if (on) lastWord = new Date();
    if (on === live) return;
    live = on;
    if (on) judge("Looking …", "unknown");
    else judge(`pgproxy has said nothing since ${lastWord.toLocaleTimeString("en-GB")}. What is shown is how it was then.`, "lost");
  }
  function listen() {
    clearTimeout(again);
    source?.close();
    source = new EventSource("events");
    const on = (name, take) => source.addEventListener(name, (event) => {
      heard = Date.now();
      connected(true);
      take(JSON.parse(event.data));
    });
    on("history", (all) => {
      columns = NAMES.map((name) => all.columns[all.names.indexOf(name)] ?? []);
      told = false;
      draw();
      showNow();
    });
    on("point", (point) => {
      if (!point) return;
      if (columns[0].length && point[0] <= columns[0].at(-1)) columns = NAMES.map(() => []);
      columns.forEach((column, place) => {
        column.push(point[place]);
        if (column.length > KEPT) column.shift();
      });
      draw();
      showNow();
    });
    on("tables", (all) => {
      tables = all;
      told = true;
      showTables();
      showNow();
    });
    source.onerror = () => {
      connected(false);
      // One that was refused (too many look, no token) is not tried again by the browser.
      if (source.readyState === EventSource.CLOSED) again = setTimeout(listen, AGAIN);
    };
  }
  setInterval(() => {
    if (source && Date.now() - heard > SILENT) connected(false);
  }, 1000);
  // A page that nobody sees costs nothing.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(again);
      source?.close();
      source = null;
    } else if (!source) {
      listen();
    }
  });

  for (const button of document.querySelectorAll("[data-span]")) {
    button.addEventListener("click", () => {
      span = Number(button.dataset.span);
      for (const other of document.querySelectorAll("[data-span]")) other.setAttribute("aria-pressed", String(other === button));
      draw();
    });
  }
  document.querySelectorAll("[data-chart]").forEach(build);
  listen();
})();
